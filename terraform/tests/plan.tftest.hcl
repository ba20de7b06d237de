# Every variable that changes the plan, with a provider that asks nobody.

mock_provider "aws" {
  mock_data "aws_region" {
    defaults = { name = "eu-west-1" }
  }
  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_availability_zones" {
    defaults = { names = ["eu-west-1a", "eu-west-1b", "eu-west-1c"] }
  }
  mock_data "aws_ami" {
    defaults = { id = "ami-0123456789abcdef0" }
  }
  mock_data "aws_subnet" {
    defaults = { cidr_block = "10.64.0.0/20" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_resource "aws_lb" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:loadbalancer/net/x/0123456789abcdef" }
  }
  mock_resource "aws_lb_target_group" {
    defaults = { arn = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/x/0123456789abcdef" }
  }
  mock_resource "aws_launch_template" {
    defaults = { id = "lt-0123456789abcdef0", latest_version = 1 }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/x" }
  }
  mock_resource "aws_dynamodb_table" {
    defaults = { arn = "arn:aws:dynamodb:eu-west-1:123456789012:table/x" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::x" }
  }
}

variables {
  domain = "example.com"
}

run "one_domain" {
  command = apply

  assert {
    condition     = output.user_data == "domain=example.com\nprefix=example.com\n"
    error_message = "The user-data of one domain is two lines."
  }
  assert {
    condition     = length(output.bucket_names) == 3
    error_message = "There are three buckets."
  }
  assert {
    condition     = length(output.dns_records) == 5
    error_message = "A domain needs four SRV records and the name they point to."
  }
  assert {
    condition     = contains(output.dns_records, "_xmpps-client._tcp.example.com. 300 IN SRV 5 1 5223 xmpp.example.com.")
    error_message = "Direct TLS has its SRV record (XEP-0368)."
  }
}

run "more_domains" {
  command = apply

  variables {
    more_domains = ["example.org"]
    options      = { registration = "off" }
  }

  assert {
    condition     = output.user_data == "domain=example.com\ndomains=example.com,example.org\nprefix=example.com\nregistration=off\n"
    error_message = "All domains and options are in the user-data."
  }
  assert {
    condition     = length(output.dns_records) == 10
    error_message = "Every domain has its records."
  }
}

run "without_balancer" {
  command = apply

  variables {
    balancer = false
  }

  assert {
    condition     = output.connect_host == null && length(output.dns_records) == 4
    error_message = "Without a balancer the nodes publish their own addresses."
  }
}

run "existing_network" {
  command = plan

  variables {
    vpc_id     = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  }

  assert {
    condition     = length(module.network) == 0
    error_message = "No network is made."
  }
}

run "one_subnet_is_warned_about" {
  command = plan

  variables {
    vpc_id     = "vpc-0123456789abcdef0"
    subnet_ids = ["subnet-0123456789abcdef0"]
  }

  expect_failures = [check.subnets]
}

run "storage_by_the_nodes" {
  command = plan

  variables {
    storage = "nodes"
  }

  assert {
    condition     = length(module.data) == 0 && output.bucket_names == null
    error_message = "Terraform makes no storage."
  }
}

run "an_upper_case_domain_is_refused" {
  command = plan

  variables {
    domain = "Example.com"
  }

  expect_failures = [var.domain]
}

run "an_unknown_maker_of_storage_is_refused" {
  command = plan

  variables {
    storage = "somebody"
  }

  expect_failures = [var.storage]
}
