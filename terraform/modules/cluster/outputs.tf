output "security_group_id" {
  description = "The nodes' security group; an instance started in it with the same domain joins the cluster."
  value       = aws_security_group.node.id
}

output "autoscaling_group_name" {
  description = "The autoscaling group."
  value       = aws_autoscaling_group.node.name
}

output "role_arn" {
  description = "The nodes' role."
  value       = aws_iam_role.node.arn
}

output "instance_profile_name" {
  description = "The nodes' instance profile, for `ec2 run-instances`."
  value       = aws_iam_instance_profile.node.name
}

output "balancer" {
  description = "DNS name and zone of the load balancer, and what it and its targets are called in CloudWatch; null without one."

  value = var.balancer ? {
    dns_name          = aws_lb.this[0].dns_name
    zone_id           = aws_lb.this[0].zone_id
    arn_suffix        = aws_lb.this[0].arn_suffix
    target_arn_suffix = aws_lb_target_group.this["c2s"].arn_suffix
  } : null
}

output "ports" {
  description = "The ports that are open to the world, by name."
  value       = local.ports
}

output "user_data" {
  description = "The user-data of a node."
  value       = local.user_data
}

output "refresh_preferences" {
  description = "The preferences of the instance refresh that an upgrade is, as JSON."
  value       = jsonencode(local.refresh)
}
