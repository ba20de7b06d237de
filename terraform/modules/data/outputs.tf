output "table_arns" {
  description = "ARN of every table, by its name without the prefix; also of those that nodes will make."
  value = { for name, table in local.table_names : name =>
    var.create ? aws_dynamodb_table.this[name].arn : "arn:${local.partition}:dynamodb:${local.place}:table/${table}"
  }
}

output "bucket_arns" {
  description = "ARN of every bucket, by its purpose; also of those that nodes will make."
  value = { for name, bucket in local.bucket_names : name =>
    var.create ? aws_s3_bucket.this[name].arn : "arn:${local.partition}:s3:::${bucket}"
  }
}

output "bucket_names" {
  description = "Name of every bucket, by its purpose; also of those that nodes will make."
  value       = { for name, bucket in local.bucket_names : name => var.create ? aws_s3_bucket.this[name].bucket : bucket }
}
