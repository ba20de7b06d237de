# Each example plans as it stands.

mock_provider "aws" {
  source = "./tests/mocks"
}

run "minimal" {
  command = apply

  module {
    source = "./examples/minimal"
  }

  assert {
    condition     = length(output.dns_records) == 2
    error_message = "It tells the records of its domain."
  }
}

run "existing_vpc" {
  command = apply

  module {
    source = "./examples/existing-vpc"
  }

  variables {
    vpc_id     = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  }

  assert {
    condition     = length(output.dns_records) == 2
    error_message = "It tells the records of its domain."
  }
}

run "spot" {
  command = apply

  module {
    source = "./examples/spot"
  }

  assert {
    condition     = length(output.dns_records) == 2
    error_message = "It tells the records of its domain."
  }
}

run "dns_only" {
  command = apply

  module {
    source = "./examples/dns-only"
  }

  variables {
    zone_id   = "Z0123456789ABCDEFGHIJ"
    addresses = ["192.0.2.1", "2001:db8::1"]
  }

  assert {
    condition     = length(output.dns_records) == 4 && contains(output.dns_records, "xmpp.example.com. 300 IN AAAA 2001:db8::1")
    error_message = "The records name the nodes."
  }
}

run "multi_domain" {
  command = apply

  module {
    source = "./examples/multi-domain"
  }

  variables {
    zone_ids = { "example.com" = "Z0123456789ABCDEFGHIJ", "example.org" = "Z0123456789ABCDEFGHIK" }
  }

  assert {
    condition     = length(output.dns_records) == 8
    error_message = "Two SRV records for each of three domains, and an alias in both hosted zones."
  }
}
