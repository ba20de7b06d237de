# What the server keeps: seven tables and three buckets. schema.json is written from the server's
# own schema by a test, so both always mean the same. With `create` off nothing is made; the names
# are those that a node works out by itself.

data "aws_caller_identity" "this" {}
data "aws_region" "this" {}
data "aws_partition" "this" {}

locals {
  partition = data.aws_partition.this.partition
  place     = "${data.aws_region.this.name}:${data.aws_caller_identity.this.account_id}"

  schema = jsondecode(file("${path.module}/schema.json"))
  tables = { for table in local.schema.tables : table.name => table }

  # The first 5 bytes of SHA-256 over prefix, account and region, in base32: the same name that
  # a node works out by itself.
  digest  = sha256(join("\u0000", [var.prefix, data.aws_caller_identity.this.account_id, data.aws_region.this.name]))
  bits    = join("", [for nibble in split("", substr(local.digest, 0, 10)) : format("%04b", parseint(nibble, 16))])
  base32  = split("", "abcdefghijklmnopqrstuvwxyz234567")
  tag     = join("", [for i in range(8) : local.base32[parseint(substr(local.bits, i * 5, 5), 2)]])
  plain   = substr(replace(replace(lower(var.prefix), ".", "-"), "_", "-"), 0, 40)
  buckets = { for bucket in local.schema.buckets : bucket.name => bucket }

  table_names  = { for name in keys(local.tables) : name => "${var.prefix}-${name}" }
  bucket_names = { for name in keys(local.buckets) : name => "${local.plain}-${local.tag}-${name}" }

  rules = { for name, bucket in local.buckets : name => [
    for rule in bucket.lifecycle : merge(rule, rule.expire_days == null ? {} : { expire_days = var.upload_days })
  ] }
}

resource "aws_dynamodb_table" "this" {
  for_each = var.create ? local.tables : {}

  name                        = local.table_names[each.key]
  billing_mode                = each.value.billing_mode
  hash_key                    = each.value.partition_key
  range_key                   = each.value.sort_key
  deletion_protection_enabled = var.destroy_data == null && each.value.deletion_protection
  tags                        = var.tags

  attribute {
    name = each.value.partition_key
    type = each.value.key_type
  }

  attribute {
    name = each.value.sort_key
    type = each.value.key_type
  }

  ttl {
    attribute_name = each.value.ttl_attribute
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.point_in_time_recovery && each.value.point_in_time_recovery
  }

  server_side_encryption {
    enabled     = var.kms_key_arn != null
    kms_key_arn = var.kms_key_arn
  }
}

resource "aws_s3_bucket" "this" {
  for_each = var.create ? local.buckets : {}

  bucket        = local.bucket_names[each.key]
  force_destroy = var.destroy_data != null
  tags          = var.tags
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = { for name, bucket in aws_s3_bucket.this : name => bucket if local.buckets[name].owner_enforced }

  bucket = each.value.id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = aws_s3_bucket.this

  bucket                  = each.value.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id

  rule {
    bucket_key_enabled = var.kms_key_arn != null

    apply_server_side_encryption_by_default {
      sse_algorithm     = var.kms_key_arn == null ? "AES256" : "aws:kms"
      kms_master_key_id = var.kms_key_arn
    }
  }
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = aws_s3_bucket.this

  bucket = each.value.id

  dynamic "rule" {
    for_each = local.rules[each.key]

    content {
      id     = rule.value.id
      status = "Enabled"

      filter {
        prefix = rule.value.prefix
      }

      dynamic "expiration" {
        for_each = rule.value.expire_days == null ? [] : [rule.value.expire_days]

        content {
          days = expiration.value
        }
      }

      dynamic "abort_incomplete_multipart_upload" {
        for_each = rule.value.abort_multipart_days == null ? [] : [rule.value.abort_multipart_days]

        content {
          days_after_initiation = abort_incomplete_multipart_upload.value
        }
      }
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = { for name, bucket in aws_s3_bucket.this : name => bucket if local.buckets[name].tls_only }

  bucket = each.value.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "RefuseWithoutTls"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [each.value.arn, "${each.value.arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })

  depends_on = [aws_s3_bucket_public_access_block.this]
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = { for name, bucket in aws_s3_bucket.this : name => bucket if local.buckets[name].versioning }

  bucket = each.value.id

  versioning_configuration {
    status = "Enabled"
  }
}
