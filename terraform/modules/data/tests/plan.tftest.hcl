mock_provider "aws" {
  source = "../../tests/mocks"
}

variables {
  prefix = "example.com"
}

run "defaults" {
  command = apply

  assert {
    condition     = length(aws_dynamodb_table.this) == 7 && length(aws_s3_bucket.this) == 3
    error_message = "Seven tables and three buckets."
  }
  assert {
    condition     = alltrue([for table in aws_dynamodb_table.this : table.deletion_protection_enabled && table.point_in_time_recovery[0].enabled && table.billing_mode == "PAY_PER_REQUEST"])
    error_message = "Tables are protected, backed up and billed by request."
  }
  assert {
    condition     = alltrue([for table in aws_dynamodb_table.this : table.ttl[0].attribute_name == "exp" && table.hash_key == "pk" && table.range_key == "sk"])
    error_message = "Keys and expiry are those of the schema."
  }
  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.this : can(regex("^example-com-25rm7fz5-(data|uploads|logs)$", bucket.bucket)) && !bucket.force_destroy])
    error_message = "Buckets have the names that a node works out, and are not destroyed with objects in them."
  }
  assert {
    condition     = alltrue([for policy in aws_s3_bucket_policy.this : jsondecode(policy.policy).Statement[0].Condition.Bool["aws:SecureTransport"] == "false"])
    error_message = "Nothing is reached without TLS."
  }
  assert {
    condition     = alltrue([for block in aws_s3_bucket_public_access_block.this : block.block_public_acls && block.block_public_policy && block.ignore_public_acls && block.restrict_public_buckets])
    error_message = "Nothing is public."
  }
}

run "customer_key" {
  command = plan

  variables {
    kms_key_arn = "arn:aws:kms:eu-west-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
  }

  assert {
    condition     = alltrue([for table in aws_dynamodb_table.this : table.server_side_encryption[0].enabled])
    error_message = "Tables are encrypted with the customer's key."
  }
}

run "asked_for_in_words" {
  command = plan

  variables {
    destroy_data           = "destroy all data of example.com"
    point_in_time_recovery = false
    upload_days            = 7
  }

  assert {
    condition     = alltrue([for bucket in aws_s3_bucket.this : bucket.force_destroy]) && !anytrue([for table in aws_dynamodb_table.this : table.deletion_protection_enabled])
    error_message = "Everything can be destroyed once that was asked for in words."
  }
  assert {
    condition     = !anytrue([for table in aws_dynamodb_table.this : table.point_in_time_recovery[0].enabled])
    error_message = "Backups are off."
  }
  assert {
    condition     = anytrue([for rule in aws_s3_bucket_lifecycle_configuration.this["uploads"].rule : try(rule.expiration[0].days == 7, false)])
    error_message = "Uploads expire after 7 days."
  }
}

run "made_by_nodes" {
  command = plan

  variables {
    create = false
  }

  assert {
    condition     = length(aws_dynamodb_table.this) == 0 && length(aws_s3_bucket.this) == 0
    error_message = "Nothing is made."
  }
  assert {
    condition     = output.bucket_arns["uploads"] == "arn:aws:s3:::example-com-25rm7fz5-uploads" && output.table_arns["rooms"] == "arn:aws:dynamodb:eu-west-1:123456789012:table/example.com-rooms"
    error_message = "The names are those that a node works out."
  }
}

run "refusals" {
  command = plan

  variables {
    prefix      = "-x"
    upload_days = 0
  }

  expect_failures = [var.prefix, var.upload_days]
}

run "other_words_destroy_nothing" {
  command = plan

  variables {
    destroy_data = "destroy all data of example.org"
  }

  expect_failures = [var.destroy_data]
}
