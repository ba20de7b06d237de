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
    condition     = aws_cloudwatch_metric_alarm.throttled["example.com-archive"].alarm_actions == toset(["arn:aws:sns:eu-west-1:123456789012:alarms"])
    error_message = "A throttled table is told of."
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

run "refusals" {
  command = plan

  variables {
    certificate_days = 0
  }

  expect_failures = [var.certificate_days]
}
