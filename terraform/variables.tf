variable "domain" {
  type        = string
  description = "The XMPP domain, as in user@example.com."

  validation {
    condition     = can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$", var.domain))
    error_message = "Give a domain in lower case, as in example.com."
  }
}

variable "more_domains" {
  type        = list(string)
  default     = []
  description = "Further domains that the same cluster serves."

  validation {
    condition     = alltrue([for domain in var.more_domains : can(regex("^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]$", domain))])
    error_message = "Give domains in lower case, as in example.org."
  }
}

variable "name" {
  type        = string
  default     = null
  description = "Name of the cluster, up to 24 of a-z, 0-9 and '-'; null = made of the domain."
}

variable "image_id" {
  type        = string
  default     = null
  description = "The machine image; null = the newest one that `image_owner` has."
}

variable "image_owner" {
  type        = string
  default     = "self"
  description = "Account that owns the images to choose from."
}

variable "vpc_id" {
  type        = string
  default     = null
  description = "An existing VPC to run in; null = make one."
}

variable "subnet_ids" {
  type        = list(string)
  default     = []
  description = "Public subnets of the existing VPC, in different availability zones."
}

variable "zones" {
  type        = number
  default     = 3
  description = "Availability zones of a VPC that is made: 2 or 3."
}

variable "instance_types" {
  type        = list(string)
  default     = ["t4g.small", "t4g.medium", "m7g.medium"]
  description = "Instance types to choose from, all of the image's architecture, best first."
}

variable "size" {
  type = object({
    min = optional(number, 2)
    max = optional(number, 8)
  })
  default     = {}
  description = "How many nodes there are at least and at most."
}

variable "spot_percentage" {
  type        = number
  default     = 0
  description = "Share of the nodes above the first that are spot instances, in percent."
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

variable "zone_ids" {
  type        = map(string)
  default     = {}
  description = "Route 53 hosted zone of each domain whose records shall be made."
}

variable "storage" {
  type        = string
  default     = "terraform"
  description = "Who makes tables and buckets: `terraform`, or `nodes` when the first one starts."

  validation {
    condition     = contains(["terraform", "nodes"], var.storage)
    error_message = "Storage is made by \"terraform\" or by \"nodes\"."
  }
}

variable "prefix" {
  type        = string
  default     = null
  description = "Prefix of the names of tables and buckets; null = the domain."
}

variable "kms_key_arn" {
  type        = string
  default     = null
  description = "Customer KMS key for tables, buckets, volumes and the cluster key."
}

variable "deletion_protection" {
  type        = bool
  default     = true
  description = "Refuse to delete what holds data. Set to false, apply, then destroy."
}

variable "sessions_per_node" {
  type        = number
  default     = 20000
  description = "Sessions a node holds before another one is added."
}

variable "cpu_percent" {
  type        = number
  default     = 60
  description = "Mean CPU use above which a node is added, in percent."
}

variable "plain_http" {
  type        = bool
  default     = false
  description = "Open port 80, for certificates by the HTTP-01 challenge."
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
  description = "SNS topics that alarms go to."
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
