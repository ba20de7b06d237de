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
  mock_data "aws_subnet" {
    defaults = { cidr_block = "10.64.0.0/20" }
  }
  mock_data "aws_iam_policy_document" {
    defaults = { json = "{}" }
  }
  mock_resource "aws_iam_instance_profile" {
    defaults = { arn = "arn:aws:iam::123456789012:instance-profile/x" }
  }
}

variables {
  name        = "example"
  domains     = ["example.com"]
  prefix      = "example.com"
  vpc_id      = "vpc-0123456789abcdef0"
  subnet_ids  = ["subnet-0123456789abcdef0", "subnet-0123456789abcdef1"]
  table_arns  = ["arn:aws:dynamodb:eu-west-1:123456789012:table/example.com-accounts"]
  bucket_arns = ["arn:aws:s3:::example-com-abcdefgh-data"]
  image_id    = "ami-0123456789abcdef0"
}

run "defaults" {
  command = plan

  assert {
    condition     = aws_launch_template.node.metadata_options[0].http_tokens == "required" && aws_launch_template.node.metadata_options[0].http_put_response_hop_limit == 1
    error_message = "Metadata is version 2 only and stays on the node."
  }
  assert {
    condition     = aws_launch_template.node.block_device_mappings[0].ebs[0].encrypted == "true"
    error_message = "Volumes are encrypted."
  }
  assert {
    condition     = aws_launch_template.node.network_interfaces[0].connection_tracking_specification[0].tcp_established_timeout == 6000
    error_message = "Idle connections are tracked as long as the balancer keeps them."
  }
  assert {
    condition     = aws_vpc_security_group_ingress_rule.links.from_port == 7250 && aws_vpc_security_group_ingress_rule.links.cidr_ipv4 == null
    error_message = "Links are between nodes only."
  }
  assert {
    condition     = length(aws_vpc_security_group_ingress_rule.public) == 12 && !contains([for rule in aws_vpc_security_group_ingress_rule.public : rule.from_port], 80)
    error_message = "Six public ports over IPv4 and IPv6, and not port 80."
  }
  assert {
    condition     = alltrue([for listener in aws_lb_listener.this : listener.tcp_idle_timeout_seconds == 6000])
    error_message = "The balancer keeps idle connections for 6000 s."
  }
  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : group.preserve_client_ip == "true" && group.proxy_protocol_v2 == false && group.connection_termination == false])
    error_message = "Client addresses are kept and unhealthy nodes keep their connections."
  }
  assert {
    condition     = toset([for hook in aws_autoscaling_group.node.initial_lifecycle_hook : "${hook.name}=${hook.default_result}"]) == toset(["ready=ABANDON", "drain=CONTINUE"])
    error_message = "There is a launch hook and a terminate hook."
  }
  assert {
    condition     = aws_autoscaling_group.node.min_size == 2 && aws_autoscaling_group.node.max_size == 8
    error_message = "Two to eight nodes."
  }
}

run "proxy_protocol" {
  command = plan

  variables {
    proxy_protocol = true
  }

  assert {
    condition     = alltrue([for group in aws_lb_target_group.this : group.preserve_client_ip == "false" && group.proxy_protocol_v2])
    error_message = "Client addresses come by PROXY protocol."
  }
}

run "dns_only" {
  command = plan

  variables {
    balancer = false
  }

  assert {
    condition     = length(aws_lb.this) == 0 && length(aws_lb_listener.this) == 0 && length(aws_vpc_security_group_ingress_rule.health) == 0
    error_message = "There is no balancer and nothing for it."
  }
  assert {
    condition     = aws_autoscaling_group.node.health_check_type == "EC2"
    error_message = "Without a balancer the instance's own health counts."
  }
}

run "plain_http" {
  command = plan

  variables {
    plain_http = true
  }

  assert {
    condition     = contains([for rule in aws_vpc_security_group_ingress_rule.public : rule.from_port], 80)
    error_message = "Port 80 is open for challenges."
  }
}

run "spot" {
  command = plan

  variables {
    spot_percentage = 100
    instance_types  = ["t4g.medium", "m7g.medium"]
  }

  assert {
    condition     = aws_autoscaling_group.node.mixed_instances_policy[0].instances_distribution[0].on_demand_percentage_above_base_capacity == 0 && aws_autoscaling_group.node.capacity_rebalance
    error_message = "Everything above the first node is spot, and rebalanced."
  }
  assert {
    condition     = length(aws_autoscaling_group.node.mixed_instances_policy[0].launch_template[0].override) == 2
    error_message = "All types are offered."
  }
}

run "targets" {
  command = plan

  variables {
    sessions_per_node = 5000
    cpu_percent       = 40
    size              = { min = 1, max = 3 }
  }

  assert {
    condition     = aws_autoscaling_policy.sessions.target_tracking_configuration[0].target_value == 5000 && aws_autoscaling_policy.cpu.target_tracking_configuration[0].target_value == 40
    error_message = "The policies track what was asked for."
  }
}

run "user_data_stays_small" {
  command = plan

  variables {
    options = { motd = join("", [for i in range(200) : "0123456789"]) }
  }

  expect_failures = [aws_launch_template.node]
}

run "refusals" {
  command = plan

  variables {
    name            = "Example_"
    image_id        = "image"
    spot_percentage = 101
    cpu_percent     = 0
    size            = { min = 3, max = 2 }
  }

  expect_failures = [var.name, var.image_id, var.spot_percentage, var.cpu_percent, var.size]
}
