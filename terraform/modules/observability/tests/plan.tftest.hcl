mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  name                   = "example"
  domain                 = "example.com"
  autoscaling_group_name = "example-1"
}

run "defaults" {
  command = plan

  assert {
    condition     = toset(output.alarm_names) == toset(["example-certificate", "example-few", "example-full", "example-single-copy", "example-store-failures", "example-unsealed"])
    error_message = "What needs a person has an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.group["few"].threshold == 2 && aws_cloudwatch_metric_alarm.group["full"].threshold == 8
    error_message = "The group's bounds are watched."
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : widget.properties.region == "eu-west-1"])
    error_message = "The dashboard shows this region."
  }
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : length(widget.properties.metrics) > 0]) && length(jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets) == 5
    error_message = "Without tables there is no graph of them: one without metrics would be refused."
  }
}

run "tables_and_topics" {
  command = plan

  variables {
    table_names      = ["example.com-archive"]
    topic_arns       = ["arn:aws:sns:eu-west-1:123456789012:alarms"]
    certificate_days = 7
    size             = { min = 3, max = 5 }
    tags             = { team = "chat" }
  }

  assert {
    condition = { for key, alarm in aws_cloudwatch_metric_alarm.throttled : key => [alarm.metric_name, alarm.dimensions, alarm.alarm_actions] } == {
      "reads-example.com-archive"  = ["ReadThrottleEvents", tomap({ TableName = "example.com-archive" }), toset(["arn:aws:sns:eu-west-1:123456789012:alarms"])]
      "writes-example.com-archive" = ["WriteThrottleEvents", tomap({ TableName = "example.com-archive" }), toset(["arn:aws:sns:eu-west-1:123456789012:alarms"])]
    }
    error_message = "A throttled table is told of, by metrics that a table has."
  }
  assert {
    condition = [for widget in jsondecode(aws_cloudwatch_dashboard.this.dashboard_body).widgets : widget.properties.metrics[0] if startswith(widget.properties.title, "Units")] == [
      ["AWS/DynamoDB", "ConsumedWriteCapacityUnits", "TableName", "example.com-archive", { stat = "Sum" }],
      ["AWS/DynamoDB", "ConsumedReadCapacityUnits", "TableName", "example.com-archive", { stat = "Sum" }],
    ]
    error_message = "What tables cost is shown."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["certificate"].threshold == 7 && aws_cloudwatch_metric_alarm.group["few"].threshold == 3
    error_message = "The limits are those that were given."
  }
}

run "balancer" {
  command = plan

  variables {
    balancer = { arn_suffix = "net/example/0123456789abcdef", target_arn_suffix = "targetgroup/example-c2s/0123456789abcdef" }
  }

  assert {
    condition     = one(aws_cloudwatch_metric_alarm.unhealthy).dimensions == tomap({ LoadBalancer = "net/example/0123456789abcdef", TargetGroup = "targetgroup/example-c2s/0123456789abcdef" })
    error_message = "Nodes that fail the balancer's health check are told of."
  }
  assert {
    condition     = output.rollback_alarm_names == ["example-single-copy", "example-store-failures", "example-unhealthy"]
    error_message = "What users notice rolls an upgrade back."
  }
}

run "one_node_alone" {
  command = plan

  variables {
    size = { min = 1, max = 3 }
  }

  assert {
    condition     = !contains(output.alarm_names, "example-single-copy") && output.rollback_alarm_names == ["example-store-failures"]
    error_message = "A node that may be alone has no copies, which is no reason for an alarm."
  }
}

run "refusals" {
  command = plan

  variables {
    certificate_days = 0
  }

  expect_failures = [var.certificate_days]
}
