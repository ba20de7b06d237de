# What a node may do, and nothing else. EC2's Describe calls know no resources; everything else is
# bound to this cluster's own.

data "aws_iam_policy_document" "assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

locals {
  tables = length(var.table_arns) > 0 ? var.table_arns : [
    "arn:${local.partition}:dynamodb:${local.place}:table/${var.prefix}-*",
  ]
  bucket_prefix = substr(replace(replace(lower(var.prefix), ".", "-"), "_", "-"), 0, 40)
  buckets = length(var.bucket_arns) > 0 ? var.bucket_arns : [
    "arn:${local.partition}:s3:::${local.bucket_prefix}-*",
  ]
}

data "aws_iam_policy_document" "node" {
  statement {
    sid       = "Items"
    actions   = ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"]
    resources = local.tables
  }

  statement {
    sid       = "Objects"
    actions   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
    resources = [for arn in local.buckets : "${arn}/*"]
  }

  statement {
    sid       = "LookAtStorage"
    actions   = ["dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"]
    resources = local.tables
  }

  statement {
    sid = "LookAtBuckets"
    actions = [
      "s3:GetBucketLocation", "s3:GetBucketOwnershipControls", "s3:GetBucketPolicy", "s3:GetBucketPublicAccessBlock",
      "s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration", "s3:ListBucket",
    ]
    resources = local.buckets
  }

  dynamic "statement" {
    for_each = var.create_storage ? [1] : []

    content {
      sid = "CreateTables"
      actions = [
        "dynamodb:CreateTable", "dynamodb:TagResource", "dynamodb:UpdateContinuousBackups", "dynamodb:UpdateTable",
        "dynamodb:UpdateTimeToLive",
      ]
      resources = local.tables
    }
  }

  dynamic "statement" {
    for_each = var.create_storage ? [1] : []

    content {
      sid = "CreateBuckets"
      actions = [
        "s3:CreateBucket", "s3:PutBucketOwnershipControls", "s3:PutBucketPolicy", "s3:PutBucketPublicAccessBlock",
        "s3:PutBucketTagging", "s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration",
      ]
      resources = local.buckets
    }
  }

  statement {
    sid       = "FindNodes"
    actions   = ["ec2:DescribeInstances"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "aws:RequestedRegion"
      values   = [data.aws_region.this.name]
    }
  }

  statement {
    sid     = "Hooks"
    actions = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat", "autoscaling:SetInstanceHealth"]
    resources = [
      "arn:${local.partition}:autoscaling:${local.place}:autoScalingGroup:*:autoScalingGroupName/${var.name}-*",
    ]
  }

  statement {
    sid       = "Metrics"
    actions   = ["cloudwatch:PutMetricData"]
    resources = ["*"]

    condition {
      test     = "StringEquals"
      variable = "cloudwatch:namespace"
      values   = ["Cirrus"]
    }
  }

  dynamic "statement" {
    for_each = var.kms_key_arn == null ? [] : [var.kms_key_arn]

    content {
      sid       = "Key"
      actions   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
      resources = [statement.value]
    }
  }
}

resource "aws_iam_role" "node" {
  name_prefix        = "${var.name}-node-"
  description        = "Nodes of the XMPP cluster ${var.name}"
  assume_role_policy = data.aws_iam_policy_document.assume.json
  tags               = var.tags
}

resource "aws_iam_role_policy" "node" {
  name   = "node"
  role   = aws_iam_role.node.id
  policy = data.aws_iam_policy_document.node.json
}

resource "aws_iam_instance_profile" "node" {
  name_prefix = "${var.name}-node-"
  role        = aws_iam_role.node.name
  tags        = var.tags
}
