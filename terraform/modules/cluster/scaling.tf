# Nodes are added at once, by sessions or by CPU, and taken away slowly, one at a time: whoever is
# on a node that goes has to move.

resource "aws_autoscaling_policy" "sessions" {
  name                   = "${var.name}-sessions"
  autoscaling_group_name = aws_autoscaling_group.node.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value     = var.sessions_per_node
    disable_scale_in = true

    customized_metric_specification {
      namespace   = "Cirrus"
      metric_name = "Sessions"
      statistic   = "Average"

      metric_dimension {
        name  = "Domain"
        value = var.domains[0]
      }
    }
  }
}

resource "aws_autoscaling_policy" "cpu" {
  name                   = "${var.name}-cpu"
  autoscaling_group_name = aws_autoscaling_group.node.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value     = var.cpu_percent
    disable_scale_in = true

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}

resource "aws_autoscaling_policy" "fewer" {
  name                   = "${var.name}-fewer"
  autoscaling_group_name = aws_autoscaling_group.node.name
  policy_type            = "SimpleScaling"
  adjustment_type        = "ChangeInCapacity"
  scaling_adjustment     = -1
  cooldown               = 60 * var.scale_in_minutes
}

# One node fewer would still be a fifth below both targets. While nobody reports sessions, none is
# taken away.
resource "aws_cloudwatch_metric_alarm" "fewer" {
  alarm_name          = "${var.name}-fewer"
  alarm_description   = "One node fewer would do: one is taken away."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = var.scale_in_minutes / 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.fewer.arn]
  tags                = var.tags

  metric_query {
    id          = "fewer"
    label       = "One node fewer would do"
    return_data = true

    expression = join(" ", [
      "IF(nodes > ${max(var.size.min, 1)}",
      "AND sessions * nodes / (nodes - 1) < ${var.sessions_per_node * 0.8}",
      "AND cpu * nodes / (nodes - 1) < ${var.cpu_percent * 0.8}, 1, 0)",
    ])
  }

  metric_query {
    id = "nodes"

    metric {
      namespace   = "AWS/AutoScaling"
      metric_name = "GroupInServiceInstances"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.node.name }
      period      = 300
      stat        = "Average"
    }
  }

  metric_query {
    id = "sessions"

    metric {
      namespace   = "Cirrus"
      metric_name = "Sessions"
      dimensions  = { Domain = var.domains[0] }
      period      = 300
      stat        = "Average"
    }
  }

  metric_query {
    id = "cpu"

    metric {
      namespace   = "AWS/EC2"
      metric_name = "CPUUtilization"
      dimensions  = { AutoScalingGroupName = aws_autoscaling_group.node.name }
      period      = 300
      stat        = "Average"
    }
  }
}
