output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = aws_cloudwatch_dashboard.this.dashboard_name
}

output "alarm_names" {
  description = "The alarms of the cluster itself."
  value       = [for alarm in aws_cloudwatch_metric_alarm.this : alarm.alarm_name]
}
