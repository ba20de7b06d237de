# Alarms for what needs a person, and one dashboard.

data "aws_region" "this" {}

locals {
  # Where one node may serve alone there is no other one for copies.
  alarms = { for name, alarm in local.all : name => alarm if name != "single-copy" || var.size.min >= 2 }

  all = {
    single-copy = {
      metric = "EntitiesSingleCopy", statistic = "Maximum", operator = "GreaterThanThreshold", threshold = 0, periods = 10
      text   = "Entities have had no backup for 10 minutes: a killed node would end their sessions."
    }
    store-failures = {
      metric = "StoreFailures", statistic = "Sum", operator = "GreaterThanThreshold", threshold = 10, periods = 3
      text   = "Tables or buckets refuse or fail: users get errors for what needs them."
    }
    certificate = {
      metric = "CertificateDays", statistic = "Minimum", operator = "LessThanThreshold", threshold = var.certificate_days, periods = 1
      text   = "A certificate runs out and was not renewed."
    }
    unsealed = {
      metric = "UnsealedDays", statistic = "Maximum", operator = "GreaterThanThreshold", threshold = 14, periods = 1
      text   = "Archived messages wait to be sealed for more than 14 days."
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = local.alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = "Cirrus"
  metric_name         = each.value.metric
  dimensions          = { Domain = var.domain }
  statistic           = each.value.statistic
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.periods
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.topic_arns
  ok_actions          = var.topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_metric_alarm" "group" {
  for_each = {
    few = {
      metric = "GroupInServiceInstances", operator = "LessThanThreshold", threshold = var.size.min, periods = 15
      text   = "Fewer nodes than there shall be at least, for 15 minutes: new ones do not come up."
    }
    full = {
      metric = "GroupDesiredCapacity", operator = "GreaterThanOrEqualToThreshold", threshold = var.size.max, periods = 60
      text   = "As many nodes as there may be, for an hour: the load may want more."
    }
  }

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.text
  namespace           = "AWS/AutoScaling"
  metric_name         = each.value.metric
  dimensions          = { AutoScalingGroupName = var.autoscaling_group_name }
  statistic           = "Average"
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  period              = 60
  evaluation_periods  = each.value.periods
  treat_missing_data  = "missing"
  alarm_actions       = var.topic_arns
  ok_actions          = var.topic_arns
  tags                = var.tags
}

# The group itself looks at no more than EC2's checks. A node that drains is no target any more.
resource "aws_cloudwatch_metric_alarm" "unhealthy" {
  count = var.balancer == null ? 0 : 1

  alarm_name          = "${var.name}-unhealthy"
  alarm_description   = "A node has failed the balancer's health check for 3 minutes."
  namespace           = "AWS/NetworkELB"
  metric_name         = "UnHealthyHostCount"
  dimensions          = { LoadBalancer = var.balancer.arn_suffix, TargetGroup = var.balancer.target_arn_suffix }
  statistic           = "Maximum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 60
  evaluation_periods  = 3
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.topic_arns
  ok_actions          = var.topic_arns
  tags                = var.tags
}

# Of all kinds of requests to a table together there are these two; ThrottledRequests is one for each
# kind.
resource "aws_cloudwatch_metric_alarm" "throttled" {
  for_each = merge([for table in var.table_names : {
    "reads-${table}"  = { table = table, metric = "ReadThrottleEvents", text = "DynamoDB throttles reads of ${table}." }
    "writes-${table}" = { table = table, metric = "WriteThrottleEvents", text = "DynamoDB throttles writes to ${table}." }
  }]...)

  alarm_name          = "${var.name}-throttled-${each.key}"
  alarm_description   = each.value.text
  namespace           = "AWS/DynamoDB"
  metric_name         = each.value.metric
  dimensions          = { TableName = each.value.table }
  statistic           = "Sum"
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  period              = 300
  evaluation_periods  = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.topic_arns
  tags                = var.tags
}

resource "aws_cloudwatch_dashboard" "this" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = [for index, widget in [for widget in [
      { title = "Sessions", metrics = [["Cirrus", "Sessions", "Domain", var.domain, { stat = "Sum" }]] },
      { title = "Nodes", metrics = [["AWS/AutoScaling", "GroupInServiceInstances", "AutoScalingGroupName", var.autoscaling_group_name]] },
      { title = "CPU", metrics = [["AWS/EC2", "CPUUtilization", "AutoScalingGroupName", var.autoscaling_group_name]] },
      { title = "Units written, tables", metrics = [for table in var.table_names : ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", table, { stat = "Sum" }]] },
      { title = "Units read, tables", metrics = [for table in var.table_names : ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", table, { stat = "Sum" }]] },
      { title = "Entities without a backup", metrics = [["Cirrus", "EntitiesSingleCopy", "Domain", var.domain, { stat = "Maximum" }]] },
      { title = "Store failures", metrics = [["Cirrus", "StoreFailures", "Domain", var.domain, { stat = "Sum" }]] },
      ] : widget if length(widget.metrics) > 0] : {
      type       = "metric"
      x          = 12 * (index % 2)
      y          = 6 * floor(index / 2)
      width      = 12
      height     = 6
      properties = merge(widget, { region = data.aws_region.this.name, period = 60, view = "timeSeries", stacked = false })
    }]
  })
}
