output "vpc_id" {
  description = "The VPC."
  value       = aws_vpc.this.id
}

output "subnet_ids" {
  description = "Its public subnets, one for each zone."
  value       = aws_subnet.this[*].id

  # What is in them needs the ways out from the first moment to the last.
  depends_on = [aws_route.internet, aws_route_table_association.this, aws_vpc_endpoint.this]
}
