# Nodes: security group, launch template, autoscaling group with its hooks and policies.

data "aws_region" "this" {}
data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}

locals {
  # name = port, and where health is asked for. Where an authority asks by TLS, it asks port 443.
  ports = merge(
    { c2s = 5222, c2s-tls = 5223 },
    var.plain_http ? { http = 80 } : {},
    lookup(var.options, "acme.challenge", "") == "tls-alpn-01" ? { https = 443 } : {},
  )
  links  = 7250
  health = 9300
  # Two checks 10 s apart (balancer.tf) find a node unhealthy. A drain has 60 s unless options say
  # otherwise, and waits for at most half of them.
  settle    = 20
  partition = data.aws_partition.this.partition
  place     = "${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}"

  # Where the balancer's own addresses are: one in each of its subnets.
  balancers = distinct([for subnet in data.aws_subnet.this : subnet.cidr_block])

  # Of which kind the instances are.
  distribution = {
    base               = 1
    on_demand          = 100 - var.spot_percentage
    on_demand_strategy = "prioritized"
    spot_strategy      = "price-capacity-optimized"
  }

  # The prefix is the first domain unless another one is given, and the health port is for this
  # machine alone unless a balancer asks for it, which sends clients until it has noticed that a
  # node drains. A header says for whom a connection is only if it comes from the balancer. Without
  # one nodes tell clients their own addresses.
  user_data = join("\n", concat(
    ["domain=${join(",", var.domains)}"],
    var.prefix == var.domains[0] ? [] : ["store.prefix=${var.prefix}"],
    var.balancer && !contains(keys(var.options), "listen.health") ? ["listen.health=:${local.health}"] : [],
    var.balancer && !contains(keys(var.options), "drain.settle_seconds") ? ["drain.settle_seconds=${local.settle}"] : [],
    var.balancer && var.proxy_protocol && !contains(keys(var.options), "listen.proxy_networks") ? ["listen.proxy_networks=${join(",", local.balancers)}"] : [],
    var.balancer || contains(keys(var.options), "cluster.public_address") ? [] : ["cluster.public_address=auto"],
    [for key in sort(keys(var.options)) : "${key}=${var.options[key]}"],
    [""],
  ))
}

resource "aws_security_group" "node" {
  name_prefix = "${var.name}-node-"
  description = "Nodes of the XMPP cluster ${var.name}"
  vpc_id      = var.vpc_id
  tags        = merge(var.tags, { Name = "${var.name}-node" })

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_vpc_security_group_ingress_rule" "public" {
  for_each = { for pair in setproduct(keys(local.ports), ["4", "6"]) : join("-ipv", pair) => pair }

  security_group_id = aws_security_group.node.id
  description       = "${each.value[0]} over IPv${each.value[1]}"
  ip_protocol       = "tcp"
  from_port         = local.ports[each.value[0]]
  to_port           = local.ports[each.value[0]]
  cidr_ipv4         = each.value[1] == "4" ? "0.0.0.0/0" : null
  cidr_ipv6         = each.value[1] == "6" ? "::/0" : null
}

resource "aws_vpc_security_group_ingress_rule" "links" {
  security_group_id            = aws_security_group.node.id
  description                  = "Links between nodes"
  ip_protocol                  = "tcp"
  from_port                    = local.links
  to_port                      = local.links
  referenced_security_group_id = aws_security_group.node.id
}

data "aws_subnet" "this" {
  for_each = var.balancer ? toset([for index in range(length(var.subnet_ids)) : tostring(index)]) : []

  id = var.subnet_ids[tonumber(each.value)]
}

resource "aws_vpc_security_group_ingress_rule" "health" {
  for_each = data.aws_subnet.this

  security_group_id = aws_security_group.node.id
  description       = "Health checks of the load balancer"
  ip_protocol       = "tcp"
  from_port         = local.health
  to_port           = local.health
  cidr_ipv4         = each.value.cidr_block
}

resource "aws_vpc_security_group_egress_rule" "all" {
  for_each = { "4" = "0.0.0.0/0", "6" = "::/0" }

  security_group_id = aws_security_group.node.id
  description       = "Clients' answers, AWS, authorities of certificates over IPv${each.key}"
  ip_protocol       = "-1"
  cidr_ipv4         = each.key == "4" ? each.value : null
  cidr_ipv6         = each.key == "6" ? each.value : null
}

resource "aws_launch_template" "node" {
  name_prefix            = "${var.name}-"
  description            = "Nodes of the XMPP cluster ${var.name}"
  image_id               = var.image_id
  instance_type          = var.instance_types[0]
  key_name               = var.key_name
  update_default_version = true
  ebs_optimized          = true
  user_data              = base64encode(local.user_data)
  tags                   = var.tags

  iam_instance_profile {
    arn = aws_iam_instance_profile.node.arn
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
    # Nobody reads them there, and EC2 would launch no instance with a tag like `Cost Center`.
    instance_metadata_tags = "disabled"
  }

  network_interfaces {
    associate_public_ip_address = true
    delete_on_termination       = true
    security_groups             = [aws_security_group.node.id]

    # Idle clients are legitimate: the default forgets a silent connection after 350 s on newer
    # instance types, long before the balancer does.
    connection_tracking_specification {
      tcp_established_timeout = 6000
    }
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = 8
      encrypted             = true
      kms_key_id            = var.kms_key_arn
      delete_on_termination = true
    }
  }

  monitoring {
    enabled = true
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]

    content {
      resource_type = tag_specifications.value
      tags          = merge(var.tags, { Name = "${var.name}-node", "cirrus:domain" = var.domains[0] })
    }
  }

  lifecycle {
    create_before_destroy = true

    precondition {
      condition     = length(base64encode(local.user_data)) / 4 * 3 < 1024
      error_message = "User-data would have 1 KB or more: give fewer `options`, or put them into a file and refer to it."
    }
  }
}

resource "aws_autoscaling_group" "node" {
  name_prefix         = "${var.name}-"
  min_size            = var.size.min
  max_size            = var.size.max
  vpc_zone_identifier = var.subnet_ids
  target_group_arns   = [for group in aws_lb_target_group.this : group.arn]
  # Replacing a node cuts its connections, and the balancer sends no new ones to an unhealthy one.
  health_check_type         = var.replace_unhealthy ? "ELB" : "EC2"
  health_check_grace_period = 180
  default_instance_warmup   = local.warmup
  capacity_rebalance        = var.spot_percentage > 0
  wait_for_capacity_timeout = "0"
  termination_policies      = ["OldestLaunchTemplate", "AllocationStrategy", "Default"]
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupTerminatingInstances"]

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = local.distribution.base
      on_demand_percentage_above_base_capacity = local.distribution.on_demand
      on_demand_allocation_strategy            = local.distribution.on_demand_strategy
      spot_allocation_strategy                 = local.distribution.spot_strategy
    }

    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.node.id
        version            = aws_launch_template.node.latest_version
      }

      dynamic "override" {
        for_each = var.instance_types

        content {
          instance_type = override.value
        }
      }
    }
  }

  initial_lifecycle_hook {
    name                 = "ready"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_LAUNCHING"
    default_result       = "ABANDON"
    heartbeat_timeout    = 300
  }

  initial_lifecycle_hook {
    name                 = "drain"
    lifecycle_transition = "autoscaling:EC2_INSTANCE_TERMINATING"
    default_result       = "CONTINUE"
    heartbeat_timeout    = 600
  }

  dynamic "tag" {
    for_each = merge(var.tags, { Name = "${var.name}-node", "cirrus:domain" = var.domains[0] })

    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    # Scaling changes the size, and an upgrade that has succeeded the version (upgrade.tf).
    ignore_changes = [
      desired_capacity,
      mixed_instances_policy[0].launch_template[0].launch_template_specification[0].version,
    ]
  }

  # Behind a balancer a node that goes is waited for for up to 15 minutes (balancer.tf and the hook).
  timeouts {
    delete = "30m"
  }

  # A node that starts before its role has a policy would fail, as would one that reaches nothing; and
  # one that goes says farewell to others and to AWS.
  depends_on = [
    aws_iam_role_policy.node,
    aws_vpc_security_group_egress_rule.all,
    aws_vpc_security_group_ingress_rule.links,
    aws_vpc_security_group_ingress_rule.health,
    aws_vpc_security_group_ingress_rule.public,
  ]
}

resource "aws_autoscaling_notification" "this" {
  count = length(var.alarm_topic_arns)

  group_names   = [aws_autoscaling_group.node.name]
  topic_arn     = var.alarm_topic_arns[count.index]
  notifications = ["autoscaling:EC2_INSTANCE_LAUNCH_ERROR", "autoscaling:EC2_INSTANCE_TERMINATE_ERROR"]
}
