# A network load balancer that passes TCP through: TLS ends at the node, connections stay for
# days, and a node that stops being healthy keeps the ones it has until it has drained.

resource "aws_lb" "this" {
  count = var.balancer ? 1 : 0

  name                             = var.name
  load_balancer_type               = "network"
  internal                         = false
  subnets                          = var.subnet_ids
  enable_cross_zone_load_balancing = true
  enable_deletion_protection       = false
  tags                             = var.tags
}

resource "aws_lb_target_group" "this" {
  for_each = var.balancer ? local.ports : {}

  name                   = "${var.name}-${each.key}"
  port                   = each.value
  protocol               = "TCP"
  vpc_id                 = var.vpc_id
  target_type            = "instance"
  preserve_client_ip     = !var.proxy_protocol
  proxy_protocol_v2      = var.proxy_protocol
  connection_termination = false
  # A group waits for so long before it waits for the hook of a node that goes.
  deregistration_delay = 120
  tags                 = var.tags

  health_check {
    protocol            = "HTTP"
    port                = tostring(local.health)
    path                = "/health"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }

  target_health_state {
    enable_unhealthy_connection_termination = false
  }
}

resource "aws_lb_listener" "this" {
  for_each = aws_lb_target_group.this

  load_balancer_arn        = aws_lb.this[0].arn
  port                     = each.value.port
  protocol                 = "TCP"
  tcp_idle_timeout_seconds = 6000
  tags                     = var.tags

  default_action {
    type             = "forward"
    target_group_arn = each.value.arn
  }
}
