variable "name" {
  type        = string
  description = "Name of the cluster and prefix of what belongs to it."

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?$", var.name))
    error_message = "A name has 1 to 24 of a-z, 0-9 and '-', and neither starts nor ends with '-': load balancers take no more."
  }
}

variable "domains" {
  type        = list(string)
  description = "The XMPP domains that the cluster serves; the first one names it."

  validation {
    condition     = length(var.domains) > 0
    error_message = "At least one domain is needed."
  }
}

variable "prefix" {
  type        = string
  description = "Prefix of the names of tables and buckets."
}

variable "vpc_id" {
  type        = string
  description = "The VPC to run in."
}

variable "subnet_ids" {
  type        = list(string)
  description = "Public subnets in different availability zones."

  validation {
    condition     = length(var.subnet_ids) > 0
    error_message = "At least one subnet is needed."
  }
}

variable "table_arns" {
  type        = list(string)
  description = "ARNs of the tables that nodes may use."
}

variable "bucket_arns" {
  type        = list(string)
  description = "ARNs of the buckets that nodes may use."
}

variable "create_storage" {
  type        = bool
  default     = false
  description = "Nodes may create tables and buckets themselves."
}

variable "kms_key_arn" {
  type        = string
  default     = null
  description = "Customer KMS key of tables, buckets, volumes and of the cluster key."
}

variable "image_id" {
  type        = string
  description = "The machine image."

  validation {
    condition     = can(regex("^ami-[0-9a-f]{8,17}$", var.image_id))
    error_message = "An image id looks like ami-0123456789abcdef0."
  }
}

variable "instance_types" {
  type        = list(string)
  default     = ["t4g.small", "t4g.medium", "m7g.medium"]
  description = "Instance types to choose from, all of the image's architecture, best first."

  validation {
    condition     = length(var.instance_types) >= 1 && length(var.instance_types) <= 40
    error_message = "Name 1 to 40 instance types."
  }
}

variable "size" {
  type = object({
    min = optional(number, 2)
    max = optional(number, 8)
  })
  default     = {}
  description = "How many nodes there are at least and at most."

  validation {
    condition     = var.size.min >= 0 && var.size.max >= max(var.size.min, 1)
    error_message = "At least 0 nodes, and at most no fewer than at least."
  }
}

variable "spot_percentage" {
  type        = number
  default     = 0
  description = "Share of the nodes above the first that are spot instances, in percent."

  validation {
    condition     = var.spot_percentage >= 0 && var.spot_percentage <= 100
    error_message = "A percentage is 0 to 100."
  }
}

variable "balancer" {
  type        = bool
  default     = true
  description = "Put a network load balancer in front; otherwise clients find nodes by DNS alone."
}

variable "proxy_protocol" {
  type        = bool
  default     = false
  description = "Pass client addresses by PROXY protocol version 2 instead of keeping them in the packets."
}

variable "plain_http" {
  type        = bool
  default     = false
  description = "Open port 80, for certificates by the HTTP-01 challenge."
}

variable "sessions_per_node" {
  type        = number
  default     = 20000
  description = "Sessions a node holds before another one is added."

  validation {
    condition     = var.sessions_per_node >= 1
    error_message = "A node holds at least one session."
  }
}

variable "cpu_percent" {
  type        = number
  default     = 60
  description = "Mean CPU use above which a node is added, in percent."

  validation {
    condition     = var.cpu_percent >= 10 && var.cpu_percent <= 95
    error_message = "Scale at 10 to 95 percent."
  }
}

variable "options" {
  type        = map(string)
  default     = {}
  description = "Further `key=value` lines of user-data."
}

variable "key_name" {
  type        = string
  default     = null
  description = "EC2 key pair for logging in to nodes; port 22 is not opened for it."
}

variable "alarm_topic_arns" {
  type        = list(string)
  default     = []
  description = "SNS topics that the group's own notifications go to."
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
