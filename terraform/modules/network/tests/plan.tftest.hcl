mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name = "example"
}

run "three_zones" {
  command = plan

  assert {
    condition     = join(" ", aws_subnet.this[*].cidr_block) == join(" ", ["10.64.0.0/20", "10.64.16.0/20", "10.64.32.0/20"])
    error_message = "Each zone has a /20."
  }
  assert {
    condition     = toset([for endpoint in aws_vpc_endpoint.this : endpoint.service_name]) == toset(["com.amazonaws.eu-west-1.dynamodb", "com.amazonaws.eu-west-1.s3"])
    error_message = "Tables and buckets have gateway endpoints."
  }
}

run "two_zones_in_another_range" {
  command = plan

  variables {
    zones = 2
    cidr  = "172.20.0.0/18"
  }

  assert {
    condition     = join(" ", aws_subnet.this[*].cidr_block) == join(" ", ["172.20.0.0/20", "172.20.16.0/20"])
    error_message = "Two zones of the given range."
  }
}

run "refusals" {
  command = plan

  variables {
    zones = 1
    cidr  = "10.0.0.0/24"
  }

  expect_failures = [var.zones, var.cidr]
}
