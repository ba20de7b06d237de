# SRV records (RFC 6120 section 3.2.1, XEP-0368) and the name they point to: xmpp.<domain> in
# hosted zones of Route 53, where that name is an alias of the load balancer; the balancer itself
# elsewhere, because an SRV record must not point to a CNAME (RFC 2782). With neither balancer nor
# addresses there is nothing that they could lead to: they are left to `cirrus-server cluster dns`.

locals {
  services = {
    "_xmpp-client._tcp"  = 5222
    "_xmpps-client._tcp" = 5223
  }

  zones = { for domain, zone in var.zone_ids : domain => zone if contains(var.domains, domain) }
  hosts = { for domain in var.domains : domain =>
    var.target == null || contains(keys(local.zones), domain) ? "${var.host}.${domain}" : var.target.dns_name
  }

  srv = { for pair in setproduct(var.domains, keys(local.services)) : "${pair[1]}.${pair[0]}" => {
    domain = pair[0]
    value  = "5 1 ${local.services[pair[1]]} ${local.hosts[pair[0]]}."
  } if var.target != null || length(var.addresses) > 0 }

  addresses = {
    A    = [for address in var.addresses : address if !strcontains(address, ":")]
    AAAA = [for address in var.addresses : address if strcontains(address, ":")]
  }
  address_records = { for pair in setproduct(keys(local.zones), keys(local.addresses)) : "${pair[0]}-${pair[1]}" => {
    domain = pair[0]
    type   = pair[1]
  } if var.target == null && length(local.addresses[pair[1]]) > 0 }
}

resource "aws_route53_record" "srv" {
  for_each = { for name, record in local.srv : name => record if contains(keys(local.zones), record.domain) }

  zone_id = local.zones[each.value.domain]
  name    = each.key
  type    = "SRV"
  ttl     = var.ttl
  records = [each.value.value]
}

resource "aws_route53_record" "host" {
  for_each = var.target == null ? {} : local.zones

  zone_id = each.value
  name    = "${var.host}.${each.key}"
  type    = "A"

  alias {
    name                   = var.target.dns_name
    zone_id                = var.target.zone_id
    evaluate_target_health = false
  }
}

resource "aws_route53_record" "address" {
  for_each = local.address_records

  zone_id = local.zones[each.value.domain]
  name    = "${var.host}.${each.value.domain}"
  type    = each.value.type
  ttl     = var.ttl
  records = local.addresses[each.value.type]
}
