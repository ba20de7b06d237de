output "records" {
  description = "Every DNS record that the domains need, in zone file form; those of hosted zones given are made already."
  value = concat(
    [for name in sort(keys(local.srv)) : "${name}. ${var.ttl} IN SRV ${local.srv[name].value}"],
    var.target == null ? [] : [for domain in var.domains : "${var.host}.${domain}. ${var.ttl} IN CNAME ${var.target.dns_name}."],
  )
}
