# A whole cluster: network, tables and buckets, nodes, DNS records, alarms. Each module works
# alone as well.

locals {
  domains = concat([var.domain], var.more_domains)
  name    = coalesce(var.name, trimsuffix(substr(replace(var.domain, ".", "-"), 0, 24), "-"))
  prefix  = coalesce(var.prefix, var.domain)
  image   = coalesce(var.image_id, one(data.aws_ami.this[*].id))
  tags    = merge({ "cirrus:domain" = var.domain }, var.tags)

  # Certificates: by records where nodes may write them for every domain, else by questions to
  # port 80, which is open for nothing else.
  in_zones  = alltrue([for domain in local.domains : contains(keys(var.zone_ids), domain)])
  acme_dns  = coalesce(var.acme_dns, local.in_zones)
  options   = merge(local.acme_dns ? { "acme.challenge" = "dns-01" } : {}, var.options)
  acme_http = lookup(local.options, "acme.enabled", "true") == "true" && lookup(local.options, "acme.challenge", "http-01") == "http-01"
}

data "aws_ami" "this" {
  count = var.image_id == null ? 1 : 0

  owners      = [var.image_owner]
  most_recent = true
  name_regex  = "^cirrus-[0-9]"

  filter {
    name   = "architecture"
    values = [can(regex("^[a-z]+[0-9]+g[a-z]*\\.", var.instance_types[0])) ? "arm64" : "x86_64"]
  }
}

module "network" {
  source = "./modules/network"
  count  = var.vpc_id == null ? 1 : 0

  name  = local.name
  cidr  = var.cidr
  zones = var.zones
  tags  = local.tags
}

module "data" {
  source = "./modules/data"

  prefix                 = local.prefix
  create                 = var.storage == "terraform"
  kms_key_arn            = var.kms_key_arn
  point_in_time_recovery = var.point_in_time_recovery
  upload_days            = var.upload_days
  destroy_data           = var.destroy_data
  tags                   = local.tags
}

module "cluster" {
  source = "./modules/cluster"

  name               = local.name
  domains            = local.domains
  prefix             = local.prefix
  vpc_id             = coalesce(var.vpc_id, one(module.network[*].vpc_id))
  subnet_ids         = var.vpc_id == null ? one(module.network[*].subnet_ids) : var.subnet_ids
  table_arns         = values(module.data.table_arns)
  bucket_arns        = values(module.data.bucket_arns)
  create_storage     = var.storage == "nodes"
  kms_key_arn        = var.kms_key_arn
  secret_arns        = var.secret_arns
  parameter_arns     = var.parameter_arns
  object_arns        = var.object_arns
  reference_key_arns = var.reference_key_arns
  challenge_zone_ids = local.acme_dns ? values(var.zone_ids) : []
  image_id           = local.image
  instance_types     = var.instance_types
  size               = var.size
  spot_percentage    = var.spot_percentage
  balancer           = var.balancer
  proxy_protocol     = var.proxy_protocol
  replace_unhealthy  = var.replace_unhealthy
  plain_http         = coalesce(var.plain_http, local.acme_http)
  sessions_per_node  = var.sessions_per_node
  cpu_percent        = var.cpu_percent
  scale_in_minutes   = var.scale_in_minutes
  upgrade            = var.upgrade
  rollback_alarms    = module.observability.rollback_alarm_names
  options            = local.options
  key_name           = var.key_name
  alarm_topic_arns   = var.alarm_topic_arns
  tags               = local.tags
}

module "dns" {
  source = "./modules/dns"

  domains   = local.domains
  zone_ids  = var.zone_ids
  target    = module.cluster.balancer
  addresses = var.addresses
}

module "observability" {
  source = "./modules/observability"

  name                   = local.name
  domain                 = var.domain
  autoscaling_group_name = module.cluster.autoscaling_group_name
  balancer               = module.cluster.balancer
  size                   = var.size
  table_names            = [for name in keys(module.data.table_arns) : "${local.prefix}-${name}"]
  topic_arns             = var.alarm_topic_arns
  tags                   = local.tags
}

check "subnets" {
  assert {
    condition     = var.vpc_id == null || length(var.subnet_ids) >= 2
    error_message = "Name two or more subnets of the VPC, in different availability zones: one zone alone is a single point of failure."
  }
}

check "challenge_zones" {
  assert {
    condition     = !local.acme_dns || local.in_zones
    error_message = "Nodes answer ACME's DNS-01 challenge for domains in `zone_ids` only: name the zone of each domain, or set acme_dns = false."
  }
}

check "key_of_storage" {
  assert {
    condition     = var.kms_key_arn == null || var.storage == "terraform"
    error_message = "Tables and buckets that nodes make are encrypted with AWS's own keys: only storage = \"terraform\" uses the customer key for them."
  }
}
