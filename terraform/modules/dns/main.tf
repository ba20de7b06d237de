# SRV records (RFC 6120 section 3.2.1, XEP-0368) and the name they point to.

locals {
  services = {
    "_xmpp-client._tcp"  = { port = 5222, priority = 5 }
    "_xmpps-client._tcp" = { port = 5223, priority = 5 }
    "_xmpp-server._tcp"  = { port = 5269, priority = 5 }
    "_xmpps-server._tcp" = { port = 5270, priority = 5 }
  }

  srv = { for pair in setproduct(var.domains, keys(local.services)) : "${pair[1]}.${pair[0]}" => {
    domain = pair[0]
    value  = "${local.services[pair[1]].priority} 1 ${local.services[pair[1]].port} ${var.host}.${pair[0]}."
  } }
}

resource "aws_route53_record" "srv" {
  for_each = { for name, record in local.srv : name => record if contains(keys(var.zone_ids), record.domain) }

  zone_id = var.zone_ids[each.value.domain]
  name    = each.key
  type    = "SRV"
  ttl     = var.ttl
  records = [each.value.value]
}

resource "aws_route53_record" "host" {
  for_each = var.target == null ? {} : { for domain, zone in var.zone_ids : domain => zone if contains(var.domains, domain) }

  zone_id = each.value
  name    = "${var.host}.${each.key}"
  type    = "A"

  alias {
    name                   = var.target.dns_name
    zone_id                = var.target.zone_id
    evaluate_target_health = false
  }
}
