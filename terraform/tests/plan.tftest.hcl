# Every variable that changes the plan, with a provider that asks nobody. What a variable does
# inside of a module is tested there.

mock_provider "aws" {
  source = "./tests/mocks"
}

variables {
  domain = "example.com"
}

run "one_domain" {
  command = apply

  assert {
    condition     = output.user_data == file("./tests/user-data/one-domain.txt")
    error_message = "The user-data of one domain is what tests/user-data says, which the programs' tests read as well."
  }
  assert {
    condition     = length(output.bucket_names) == 3 && length(output.table_arns) == 7
    error_message = "There are three buckets and seven tables."
  }
  assert {
    condition = toset(output.dns_records) == toset([
      "_xmpp-client._tcp.example.com. 300 IN SRV 5 1 5222 example-com-0123456789abcdef.elb.eu-west-1.amazonaws.com.",
      "_xmpps-client._tcp.example.com. 300 IN SRV 5 1 5223 example-com-0123456789abcdef.elb.eu-west-1.amazonaws.com.",
    ])
    error_message = "A domain needs two SRV records, direct TLS included (XEP-0368)."
  }
  assert {
    condition     = output.connect_host == "example-com-0123456789abcdef.elb.eu-west-1.amazonaws.com"
    error_message = "Clients can connect to the balancer before there are records."
  }
  assert {
    condition     = lookup(module.cluster.ports, "http", 0) == 80
    error_message = "Without hosted zones certificates come by questions to port 80."
  }
}

run "more_domains_and_options" {
  command = apply

  variables {
    more_domains = ["example.org"]
    options      = { "registration.enabled" = "true", "limits.depth" = "32" }
  }

  assert {
    condition     = output.user_data == file("./tests/user-data/domains-and-options.txt")
    error_message = "All domains and options are in the user-data."
  }
  assert {
    condition     = length(output.dns_records) == 4
    error_message = "Every domain has its records."
  }
}

run "prefix_without_balancer" {
  command = apply

  variables {
    prefix    = "chat"
    balancer  = false
    addresses = ["192.0.2.1"]
  }

  assert {
    condition     = output.user_data == file("./tests/user-data/prefix-without-balancer.txt")
    error_message = "The prefix is in the user-data, the health port stays on the node, and clients hear where nodes are."
  }
  assert {
    condition     = output.connect_host == null && contains(output.dns_records, "xmpp.example.com. 300 IN A 192.0.2.1")
    error_message = "Without a balancer the records name the nodes."
  }
}

run "records_of_nodes_are_left_to_who_knows_them" {
  command = apply

  variables {
    balancer = false
    zone_ids = { "example.com" = "Z0123456789ABCDEFGHIJ" }
  }

  assert {
    condition     = length(output.dns_records) == 0
    error_message = "Records that lead nowhere, and that `cluster dns` writes too."
  }
}

run "hosted_zone" {
  command = apply

  variables {
    zone_ids = { "example.com" = "Z0123456789ABCDEFGHIJ" }
  }

  assert {
    condition     = output.user_data == file("./tests/user-data/hosted-zone.txt")
    error_message = "Certificates come by records in the zone."
  }
  assert {
    condition     = !contains(keys(module.cluster.ports), "http")
    error_message = "Port 80 stays closed."
  }

  assert {
    condition     = contains(output.dns_records, "_xmpps-client._tcp.example.com. 300 IN SRV 5 1 5223 xmpp.example.com.") && length(output.dns_records) == 3
    error_message = "In a hosted zone the records lead to xmpp.example.com, an alias of the balancer."
  }
}

run "a_domain_outside_of_the_zones" {
  command = plan

  variables {
    more_domains = ["example.org"]
    zone_ids     = { "example.com" = "Z0123456789ABCDEFGHIJ" }
  }

  assert {
    condition     = lookup(module.cluster.ports, "http", 0) == 80 && !strcontains(output.user_data, "acme.challenge")
    error_message = "One challenge is used for all domains: questions to port 80."
  }
}

run "a_challenge_outside_of_the_zones_is_warned_about" {
  command = plan

  variables {
    more_domains = ["example.org"]
    zone_ids     = { "example.com" = "Z0123456789ABCDEFGHIJ" }
    acme_dns     = true
  }

  expect_failures = [check.challenge_zones]
}

run "certificates_from_elsewhere" {
  command = plan

  variables {
    options = { "acme.enabled" = "false" }
  }

  assert {
    condition     = !contains(keys(module.cluster.ports), "http")
    error_message = "Port 80 is open only where an authority asks it."
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

run "network_of_two_zones" {
  command = apply

  variables {
    zones = 2
    cidr  = "172.20.0.0/16"
  }

  assert {
    condition     = length(module.network[0].subnet_ids) == 2
    error_message = "There is a subnet in each of the two zones."
  }
}

run "storage_by_the_nodes" {
  command = plan

  variables {
    storage = "nodes"
  }

  assert {
    condition     = output.bucket_names["data"] == "example-com-25rm7fz5-data" && output.table_arns["archive"] == "arn:aws:dynamodb:eu-west-1:123456789012:table/example.com-archive"
    error_message = "Names and permissions are those of what the nodes will make."
  }
}

run "a_key_for_storage_by_the_nodes_is_warned_about" {
  command = plan

  variables {
    storage     = "nodes"
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
  }

  expect_failures = [check.key_of_storage]
}

run "everything_else_that_reaches_a_module" {
  command = plan

  variables {
    name                   = "chat"
    image_id               = "ami-0123456789abcdef1"
    instance_types         = ["m7i.large", "m6i.large"]
    size                   = { min = 1, max = 3 }
    spot_percentage        = 50
    proxy_protocol         = true
    replace_unhealthy      = true
    plain_http             = true
    kms_key_arn            = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    point_in_time_recovery = false
    upload_days            = 7
    destroy_data           = "destroy all data of example.com"
    secret_arns            = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls-AbCdEf"]
    parameter_arns         = ["arn:aws:ssm:eu-west-1:123456789012:parameter/chat/motd"]
    object_arns            = ["arn:aws:s3:::settings/cirrus.yaml"]
    reference_key_arns     = ["arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcde0"]
    sessions_per_node      = 5000
    cpu_percent            = 40
    scale_in_minutes       = 60
    upgrade                = { canary_minutes = 30 }
    key_name               = "operator"
    alarm_topic_arns       = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
    tags                   = { team = "chat" }
  }

  assert {
    condition     = output.dashboard_name == "chat"
    error_message = "The cluster has the name that was given."
  }
}

run "alarms_that_roll_back" {
  command = apply

  assert {
    condition     = jsondecode(module.cluster.refresh_preferences).AlarmSpecification.Alarms == ["example-com-single-copy", "example-com-store-failures", "example-com-unhealthy"]
    error_message = "An upgrade looks at what says that users notice."
  }
}

run "alarms_without_a_balancer" {
  command = apply

  variables {
    balancer = false
  }

  assert {
    condition     = jsondecode(module.cluster.refresh_preferences).AlarmSpecification.Alarms == ["example-com-single-copy", "example-com-store-failures"]
    error_message = "Without a balancer nobody says that a node is unhealthy."
  }
}

run "refusals" {
  command = plan

  variables {
    domain          = "Example.com"
    name            = "Example_"
    image_id        = "image"
    image_owner     = "somebody"
    cidr            = "10.0.0.0/24"
    zones           = 1
    instance_types  = ["t4g.small", "m7i.large"]
    size            = { min = 3, max = 2 }
    spot_percentage = 101
    storage         = "somebody"
    prefix          = "-x"
    kms_key_arn     = "alias/chat"
    upload_days     = 0
    secret_arns     = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:*"]
    parameter_arns  = ["chat"]
    object_arns     = ["arn:aws:s3:::settings/*"]

    reference_key_arns = ["alias/secrets"]
    cpu_percent        = 0
    scale_in_minutes   = 7
    options            = { domain = "example.org" }
    alarm_topic_arns   = ["alarms"]
  }

  expect_failures = [
    var.domain, var.name, var.image_id, var.image_owner, var.cidr, var.zones, var.instance_types, var.size,
    var.spot_percentage, var.storage, var.prefix, var.kms_key_arn, var.upload_days, var.secret_arns,
    var.parameter_arns, var.object_arns, var.reference_key_arns, var.cpu_percent, var.scale_in_minutes, var.options, var.alarm_topic_arns,
  ]
}

run "what_does_not_go_together_is_refused" {
  command = plan

  variables {
    subnet_ids        = ["subnet-0123456789abcdef0"]
    balancer          = false
    replace_unhealthy = true
    acme_dns          = true
  }

  expect_failures = [var.subnet_ids, var.replace_unhealthy, var.acme_dns]
}

run "what_leads_nowhere_is_refused" {
  command = plan

  variables {
    vpc_id            = "vpc-0123456789abcdef0"
    addresses         = ["192.0.2.1"]
    zone_ids          = { "example.net" = "Z0123456789ABCDEFGHIJ" }
    sessions_per_node = 0
    destroy_data      = "yes"
    upgrade           = { at_once_percent = 101 }
  }

  expect_failures = [
    var.subnet_ids, var.addresses, var.zone_ids, var.sessions_per_node, var.destroy_data, var.upgrade,
  ]
}

run "a_domain_given_twice_is_refused" {
  command = plan

  variables {
    more_domains = ["example.com"]
  }

  expect_failures = [var.more_domains]
}
