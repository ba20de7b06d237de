output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "alarm_names" {
  description = "The alarms, those of tables apart."
  value       = [for alarm in concat(values(aws_cloudwatch_metric_alarm.this), values(aws_cloudwatch_metric_alarm.group), aws_cloudwatch_metric_alarm.unhealthy[*]) : alarm.alarm_name]
}

# They watch no group, so that an upgrade of the group can wait for them to be there.
output "rollback_alarm_names" {
  description = "The alarms that say that users notice: an upgrade is rolled back by them."
  value       = [for alarm in concat([for key, alarm in aws_cloudwatch_metric_alarm.this : alarm if contains(["single-copy", "store-failures"], key)], aws_cloudwatch_metric_alarm.unhealthy[*]) : alarm.alarm_name]
}
