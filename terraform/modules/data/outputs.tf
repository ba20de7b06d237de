output "table_arns" {
  description = "ARN of every table, by its name without the prefix."
  value       = { for name, table in aws_dynamodb_table.this : name => table.arn }
}

output "bucket_arns" {
  description = "ARN of every bucket, by its purpose."
  value       = { for name, bucket in aws_s3_bucket.this : name => bucket.arn }
}

output "bucket_names" {
  description = "Name of every bucket, by its purpose."
  value       = { for name, bucket in aws_s3_bucket.this : name => bucket.bucket }
}
