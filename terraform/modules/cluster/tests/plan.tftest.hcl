mock_provider "aws" {
  source = "../../tests/mocks"
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
    condition     = join(" ", sort([for rule in aws_vpc_security_group_ingress_rule.public : tostring(rule.from_port)])) == "5222 5222 5223 5223"
    error_message = "Clients' two ports over IPv4 and IPv6, and no other one."
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
    condition     = alltrue([for group in aws_lb_target_group.this : group.health_check[0].port == "9300" && group.target_health_state[0].enable_unhealthy_connection_termination == false])
    error_message = "Health has a port of its own, and a node that fails it keeps its connections."
  }
  assert {
    condition     = aws_launch_template.node.metadata_options[0].instance_metadata_tags == "disabled"
    error_message = "Tags may have spaces and slashes, which instance metadata can't show: no instance would come."
  }
  assert {
    condition     = aws_autoscaling_group.node.health_check_type == "EC2"
    error_message = "A node that the balancer finds unhealthy is not replaced: that would cut its connections."
  }
  assert {
    condition = jsondecode(terraform_data.upgrade.input.preferences) == {
      AutoRollback          = true, SkipMatching = true, MinHealthyPercentage = 100, MaxHealthyPercentage = 110, InstanceWarmup = 300,
      CheckpointPercentages = [1, 100], CheckpointDelay = 900, ScaleInProtectedInstances = "Refresh", StandbyInstances = "Ignore",
    } && length(aws_autoscaling_group.node.instance_refresh) == 0
    error_message = "A new image is rolled out without a gap, one node first, and back if it fails; and not by the provider, which would roll back to the new one."
  }
  assert {
    condition     = length(base64decode(aws_launch_template.node.user_data)) < 1024
    error_message = "User-data is small."
  }
  assert {
    condition     = aws_autoscaling_group.node.min_size == 2 && aws_autoscaling_group.node.max_size == 8
    error_message = "Two to eight nodes."
  }
}

run "permissions" {
  command = apply

  assert {
    condition = toset([for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Sid if contains(statement.Resource, "*")]) == toset([
      "LookAtHooks", "Metrics",
    ])
    error_message = "Only calls that know no resources are allowed on every resource."
  }
  assert {
    condition     = alltrue([for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : can(statement.Condition) if contains(statement.Resource, "*")])
    error_message = "And those are bound by a condition."
  }
  assert {
    condition = { for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Sid => [statement.Action, try(statement.Condition, null)] if contains(["Hooks", "Metrics"], statement.Sid) } == {
      Hooks   = [["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"], null]
      Metrics = [["cloudwatch:PutMetricData"], { StringEquals = { "cloudwatch:namespace" = "Cirrus" } }]
    }
    error_message = "A node tells hooks and CloudWatch what the watch has to tell, and figures in one namespace only."
  }
  assert {
    condition     = !anytrue(flatten([for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : [for action in statement.Action : strcontains(action, "*")]]))
    error_message = "Every action is named."
  }
  assert {
    condition     = length(setintersection([for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Sid], ["CreateTables", "CreateBuckets", "Secrets", "Parameters", "Configuration", "Key", "ReferenceKeys", "Challenges", "ChallengeIsThere", "ChallengeZones"])) == 0
    error_message = "What was not asked for is not allowed."
  }
}

run "permissions_asked_for" {
  command = apply

  variables {
    create_storage     = true
    kms_key_arn        = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    secret_arns        = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls-AbCdEf"]
    parameter_arns     = ["arn:aws:ssm:eu-west-1:123456789012:parameter/chat/motd"]
    object_arns        = ["arn:aws:s3:::settings/cirrus.yaml"]
    reference_key_arns = ["arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcde0"]
    challenge_zone_ids = ["Z0123456789ABCDEFGHIJ"]
    outcome_tags       = ["boot"]
  }

  assert {
    condition     = length(setsubtract(["CreateTables", "CreateBuckets", "Secrets", "Parameters", "Configuration", "Key", "ReferenceKeys", "Challenges", "ChallengeIsThere", "ChallengeZones"], [for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Sid])) == 0
    error_message = "What was asked for is allowed."
  }
  assert {
    condition = { for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : statement.Sid => statement.Resource if contains(["Secrets", "Configuration", "Challenges"], statement.Sid) } == {
      Secrets       = ["arn:aws:secretsmanager:eu-west-1:123456789012:secret:tls-AbCdEf"]
      Configuration = ["arn:aws:s3:::settings/cirrus.yaml"]
      Challenges    = ["arn:aws:route53:::hostedzone/Z0123456789ABCDEFGHIJ"]
    }
    error_message = "Exactly that."
  }
  assert {
    condition     = aws_launch_template.node.block_device_mappings[0].ebs[0].kms_key_id == "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
    error_message = "Volumes are encrypted with the customer's key."
  }
  assert {
    condition     = anytrue([for statement in jsondecode(aws_iam_role_policy.node.policy).Statement : try(statement.Condition["ForAllValues:StringEquals"]["aws:TagKeys"] == ["boot"], false)])
    error_message = "A node writes the tag of its outcome."
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
  assert {
    condition     = strcontains(output.user_data, "\nlisten.proxy_networks=${join(",", distinct([for subnet in data.aws_subnet.this : subnet.cidr_block]))}\n")
    error_message = "Nodes believe the balancer's subnets, and nobody else."
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
    condition     = !strcontains(output.user_data, "drain.settle_seconds")
    error_message = "A drain does not wait for one either."
  }
}

run "a_drain_waits_for_the_balancer" {
  command = plan

  variables {
    options = { "drain.settle_seconds" = "5" }
  }

  assert {
    condition     = strcontains(output.user_data, "\ndrain.settle_seconds=5\n") && !strcontains(output.user_data, "drain.settle_seconds=20")
    error_message = "As long as options say."
  }
}

run "replace_unhealthy" {
  command = plan

  variables {
    replace_unhealthy = true
  }

  assert {
    condition     = aws_autoscaling_group.node.health_check_type == "ELB"
    error_message = "The balancer's finding counts."
  }
}

run "notices" {
  command = plan

  variables {
    alarm_topic_arns = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
    key_name         = "operator"
    tags             = { team = "chat" }
  }

  assert {
    condition     = length(aws_autoscaling_notification.this) == 1 && aws_launch_template.node.key_name == "operator"
    error_message = "The group tells of nodes that do not start."
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

run "challenges_by_tls" {
  command = plan

  variables {
    options = { "acme.challenge" = "tls-alpn-01", "listen.c2s_tls" = ":5223,:443" }
  }

  assert {
    condition     = output.ports == { c2s = 5222, c2s-tls = 5223, https = 443 }
    error_message = "Port 443 is open for challenges."
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
    scale_in_minutes  = 60
  }

  assert {
    condition     = aws_autoscaling_policy.sessions.target_tracking_configuration[0].target_value == 5000 && aws_autoscaling_policy.cpu.target_tracking_configuration[0].target_value == 40
    error_message = "The policies track what was asked for."
  }
  assert {
    condition     = one([for metric in aws_autoscaling_policy.sessions.target_tracking_configuration[0].customized_metric_specification : "${metric.namespace}/${metric.metric_name} ${metric.statistic} ${join(",", [for it in metric.metric_dimension : "${it.name}=${it.value}"])}"]) == "Cirrus/Sessions Average Domain=example.com"
    error_message = "The sessions are those that the watch publishes."
  }
  assert {
    condition     = aws_autoscaling_policy.sessions.target_tracking_configuration[0].disable_scale_in && aws_autoscaling_policy.cpu.target_tracking_configuration[0].disable_scale_in
    error_message = "They only add nodes."
  }
  assert {
    condition     = aws_autoscaling_policy.fewer.scaling_adjustment == -1 && aws_autoscaling_policy.fewer.cooldown == 3600 && aws_cloudwatch_metric_alarm.fewer.evaluation_periods == 12
    error_message = "One node goes at a time, after an hour."
  }
}

run "upgrade" {
  command = plan

  variables {
    upgrade         = { canary_minutes = 0, at_once_percent = 50, failed_launches = 1, protected = "Wait", standby = "Terminate" }
    rollback_alarms = ["example-store-failures"]
  }

  assert {
    condition = jsondecode(terraform_data.upgrade.input.preferences) == {
      AutoRollback          = true, SkipMatching = true, MinHealthyPercentage = 100, MaxHealthyPercentage = 150, InstanceWarmup = 300,
      CheckpointPercentages = [100], CheckpointDelay = 0, ScaleInProtectedInstances = "Wait", StandbyInstances = "Terminate",
      AlarmSpecification    = { Alarms = ["example-store-failures"] },
    }
    error_message = "The refresh is as it was asked for, and looks at the alarms."
  }
  assert {
    condition     = terraform_data.upgrade.input.failed_launches == 1
    error_message = "So many launches may fail."
  }
}

run "user_data_stays_small" {
  command = plan

  variables {
    options = { "log.level" = join("", [for i in range(200) : "0123456789"]) }
  }

  expect_failures = [aws_launch_template.node]
}

run "refusals_of_upgrades" {
  command = plan

  variables {
    upgrade         = { canary_minutes = 2881, at_once_percent = 0, failed_launches = 0, protected = "Terminate", standby = "Refresh" }
    rollback_alarms = [for n in range(11) : "alarm-${n}"]
  }

  expect_failures = [var.upgrade, var.rollback_alarms]
}

run "refusals" {
  command = plan

  variables {
    name               = "Example_"
    domains            = []
    subnet_ids         = []
    table_arns         = ["arn:aws:dynamodb:eu-west-1:123456789012:table/*"]
    bucket_arns        = []
    image_id           = "image"
    instance_types     = ["t4g.small", "m7i.large"]
    spot_percentage    = 101
    sessions_per_node  = 0
    cpu_percent        = 0
    scale_in_minutes   = 7
    size               = { min = 3, max = 2 }
    options            = { "log.level" = "info\ndomain=example.net" }
    secret_arns        = ["*"]
    parameter_arns     = ["*"]
    object_arns        = ["*"]
    reference_key_arns = ["alias/secrets"]
    challenge_zone_ids = ["*"]
    outcome_tags       = ["cirrus:domain"]
  }

  expect_failures = [
    var.name, var.domains, var.subnet_ids, var.table_arns, var.bucket_arns, var.image_id, var.instance_types,
    var.spot_percentage, var.sessions_per_node, var.cpu_percent, var.scale_in_minutes, var.size, var.options,
    var.secret_arns, var.parameter_arns, var.object_arns, var.reference_key_arns, var.challenge_zone_ids, var.outcome_tags,
  ]
}

run "nobody_asks_for_health_without_a_balancer" {
  command = plan

  variables {
    balancer          = false
    replace_unhealthy = true
  }

  expect_failures = [var.replace_unhealthy]
}
