# What a node may do, and nothing else: every statement names this cluster's own things. The only
# exceptions are calls for which AWS knows no resources; each is bound by a condition instead.

locals {
  group_arn    = "arn:${local.partition}:autoscaling:${local.place}:autoScalingGroup:*:autoScalingGroupName/${var.name}-*"
  instance_arn = "arn:${local.partition}:ec2:${local.place}:instance/*"
  zone_arns    = [for id in var.challenge_zone_ids : "arn:${local.partition}:route53:::hostedzone/${id}"]
  in_region    = { StringEquals = { "aws:RequestedRegion" = data.aws_region.this.name } }

  storage_statements = [
    {
      Sid      = "Items"
      Action   = ["dynamodb:BatchGetItem", "dynamodb:DeleteItem", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:Query"]
      Resource = var.table_arns
    },
    {
      Sid      = "Objects"
      Action   = ["s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
      Resource = [for arn in var.bucket_arns : "${arn}/*"]
    },
    {
      Sid      = "LookAtTables"
      Action   = ["dynamodb:DescribeContinuousBackups", "dynamodb:DescribeTable", "dynamodb:DescribeTimeToLive"]
      Resource = var.table_arns
    },
    {
      Sid = "LookAtBuckets"
      Action = [
        "s3:GetBucketOwnershipControls", "s3:GetBucketPolicy", "s3:GetBucketPublicAccessBlock",
        "s3:GetBucketVersioning", "s3:GetEncryptionConfiguration", "s3:GetLifecycleConfiguration", "s3:ListBucket",
      ]
      Resource = var.bucket_arns
    },
  ]

  creation_statements = [
    {
      Sid      = "CreateTables"
      Action   = ["dynamodb:CreateTable", "dynamodb:UpdateContinuousBackups", "dynamodb:UpdateTimeToLive"]
      Resource = var.table_arns
    },
    {
      Sid = "CreateBuckets"
      Action = [
        "s3:CreateBucket", "s3:PutBucketOwnershipControls", "s3:PutBucketPolicy", "s3:PutBucketPublicAccessBlock",
        "s3:PutEncryptionConfiguration", "s3:PutLifecycleConfiguration",
      ]
      Resource = var.bucket_arns
    },
  ]

  instance_statements = [
    {
      Sid      = "Hooks"
      Action   = ["autoscaling:CompleteLifecycleAction", "autoscaling:RecordLifecycleActionHeartbeat"]
      Resource = [local.group_arn]
    },
    # Calls of the Describe kind know no resources.
    {
      Sid       = "LookAtHooks"
      Action    = ["autoscaling:DescribeAutoScalingInstances", "autoscaling:DescribeLifecycleHooks"]
      Resource  = ["*"]
      Condition = local.in_region
    },
    # The outcome of the boot, on nodes of this cluster only. What says whose they are cannot be
    # written: it is no tag of this name.
    {
      Sid      = "Outcome"
      Action   = ["ec2:CreateTags"]
      Resource = [local.instance_arn]
      Condition = {
        StringEquals                = { "aws:ResourceTag/cirrus:domain" = var.domains[0] }
        "ForAllValues:StringEquals" = { "aws:TagKeys" = var.outcome_tags }
        Null                        = { "aws:TagKeys" = "false" }
      }
    },
    {
      Sid       = "Metrics"
      Action    = ["cloudwatch:PutMetricData"]
      Resource  = ["*"]
      Condition = { StringEquals = { "cloudwatch:namespace" = "Cirrus" } }
    },
  ]

  reference_statements = [
    { Sid = "Secrets", Action = ["secretsmanager:GetSecretValue"], Resource = var.secret_arns },
    { Sid = "Parameters", Action = ["ssm:GetParameter"], Resource = var.parameter_arns },
    { Sid = "Configuration", Action = ["s3:GetObject", "s3:GetObjectVersion"], Resource = var.object_arns },
    { Sid = "ReferenceKeys", Action = ["kms:Decrypt"], Resource = var.reference_key_arns },
    {
      Sid      = "Key"
      Action   = ["kms:Decrypt", "kms:DescribeKey", "kms:Encrypt", "kms:GenerateDataKey"]
      Resource = var.kms_key_arn == null ? [] : [var.kms_key_arn]
    },
  ]

  challenge_statements = [
    {
      Sid      = "Challenges"
      Action   = ["route53:ChangeResourceRecordSets"]
      Resource = local.zone_arns
      Condition = {
        "ForAllValues:StringEquals" = { "route53:ChangeResourceRecordSetsRecordTypes" = ["TXT"] }
        "ForAllValues:StringLike"   = { "route53:ChangeResourceRecordSetsNormalizedRecordNames" = ["_acme-challenge.*"] }
      }
    },
    {
      Sid      = "ChallengeIsThere"
      Action   = ["route53:GetChange"]
      Resource = ["arn:${local.partition}:route53:::change/*"]
    },
    # It knows no resources; it tells names of zones, not what is in them.
    {
      Sid      = "ChallengeZones"
      Action   = ["route53:ListHostedZonesByName"]
      Resource = ["*"]
    },
  ]

  statements = concat(
    local.storage_statements,
    [for statement in local.creation_statements : statement if var.create_storage],
    local.instance_statements,
    [for statement in local.reference_statements : statement if length(statement.Resource) > 0],
    [for statement in local.challenge_statements : statement if length(local.zone_arns) > 0],
  )
}

resource "aws_iam_role" "node" {
  name_prefix = "${var.name}-node-"
  description = "Nodes of the XMPP cluster ${var.name}"
  tags        = var.tags

  assume_role_policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Action    = "sts:AssumeRole"
      Principal = { Service = "ec2.amazonaws.com" }
    }]
  })
}

resource "aws_iam_role_policy" "node" {
  name   = "node"
  role   = aws_iam_role.node.id
  policy = jsonencode({ Version = "2012-10-17", Statement = [for statement in local.statements : merge({ Effect = "Allow" }, statement)] })
}

resource "aws_iam_instance_profile" "node" {
  name_prefix = "${var.name}-node-"
  role        = aws_iam_role.node.name
  tags        = var.tags
}
