output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "subnet_ids" {
  description = "Its public subnets, one for each zone."
  value       = aws_subnet.this[*].id
}
