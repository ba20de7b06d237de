mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  domains = ["example.com", "example.org"]
}

run "behind_a_balancer" {
  command = plan

  variables {
    zone_ids = { "example.com" = "Z0123456789ABCDEFGHIJ" }
    target   = { dns_name = "lb.example.net", zone_id = "Z2IFOLAFXWLO4F" }
  }

  assert {
    condition     = toset(keys(aws_route53_record.srv)) == toset([for service in ["_xmpp-client", "_xmpps-client"] : "${service}._tcp.example.com"])
    error_message = "Two SRV records in the one hosted zone that was given."
  }
  assert {
    condition     = aws_route53_record.host["example.com"].name == "xmpp.example.com" && length(aws_route53_record.address) == 0
    error_message = "xmpp.example.com is an alias of the balancer."
  }
  assert {
    condition     = contains(output.records, "_xmpps-client._tcp.example.org. 300 IN SRV 5 1 5223 lb.example.net.") && length(output.records) == 5
    error_message = "The records of the other domain are told, and lead to the balancer itself."
  }
}

run "without_a_balancer" {
  command = plan

  variables {
    domains   = ["example.com"]
    zone_ids  = { "example.com" = "Z0123456789ABCDEFGHIJ" }
    addresses = ["192.0.2.1", "192.0.2.2", "2001:db8::1"]
    host      = "chat"
    ttl       = 60
  }

  assert {
    condition     = aws_route53_record.address["example.com-A"].records == toset(["192.0.2.1", "192.0.2.2"]) && aws_route53_record.address["example.com-AAAA"].records == toset(["2001:db8::1"])
    error_message = "The nodes' addresses are in the zone."
  }
  assert {
    condition     = contains(output.records, "chat.example.com. 60 IN A 192.0.2.2") && contains(output.records, "_xmpp-client._tcp.example.com. 60 IN SRV 5 1 5222 chat.example.com.")
    error_message = "And they are told."
  }
}

run "refusals" {
  command = plan

  variables {
    domains   = []
    addresses = ["localhost"]
    host      = "a.b"
    ttl       = 0
  }

  expect_failures = [var.domains, var.addresses, var.host, var.ttl]
}
