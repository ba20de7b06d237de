output "records" {
  description = "Every DNS record that clients need, as lines of a zone file; those in the given hosted zones are made already."
  value = concat(
    [for name in sort(keys(local.srv)) : "${name}. ${var.ttl} IN SRV ${local.srv[name].value}"],
    # A zone file has no word for an alias.
    [for domain in sort(keys(local.zones)) : "${var.host}.${domain}. IN A ; alias of ${var.target.dns_name}" if var.target != null],
    flatten([for domain in var.domains : [for type, addresses in local.addresses : [
      for address in addresses : "${var.host}.${domain}. ${var.ttl} IN ${type} ${address}"
    ]] if var.target == null]),
  )
}
