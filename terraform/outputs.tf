output "dns_records" {
  description = "Every DNS record that clients need, as lines of a zone file; those in the zones of `zone_ids` are made already."
  value       = module.dns.records
}

output "connect_host" {
  description = "What clients connect to before the DNS records are there; null without a balancer."
  value       = module.cluster.balancer == null ? null : module.cluster.balancer.dns_name
}

output "autoscaling_group_name" {
  description = "The autoscaling group of the nodes."
  value       = module.cluster.autoscaling_group_name
}

output "security_group_id" {
  description = "The nodes' security group."
  value       = module.cluster.security_group_id
}

output "instance_profile_name" {
  description = "The nodes' instance profile, for `ec2 run-instances`."
  value       = module.cluster.instance_profile_name
}

output "role_arn" {
  description = "The nodes' role, for policies of keys and secrets."
  value       = module.cluster.role_arn
}

output "table_arns" {
  description = "ARN of every table, by its name without the prefix."
  value       = module.data.table_arns
}

output "bucket_names" {
  description = "The buckets, by purpose."
  value       = module.data.bucket_names
}

output "user_data" {
  description = "The user-data of a node."
  value       = module.cluster.user_data
}

output "dashboard_name" {
  description = "The CloudWatch dashboard."
  value       = module.observability.dashboard_name
}
