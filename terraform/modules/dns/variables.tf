variable "domains" {
  type        = list(string)
  description = "The XMPP domains."

  validation {
    condition     = length(var.domains) > 0
    error_message = "At least one domain is needed."
  }
}

variable "zone_ids" {
  type        = map(string)
  default     = {}
  description = "Route 53 hosted zone of each domain whose records shall be made; the others are only told."
}

variable "target" {
  type = object({
    dns_name = string
    zone_id  = string
  })
  default     = null
  description = "The load balancer; null without one."
}

variable "addresses" {
  type        = list(string)
  default     = []
  description = "Without a load balancer: public addresses of nodes, IPv4 or IPv6, that the records shall name."

  validation {
    condition     = alltrue([for address in var.addresses : can(cidrhost("${address}/32", 0)) || can(cidrhost("${address}/128", 0))])
    error_message = "An address is IPv4, as in 192.0.2.1, or IPv6, as in 2001:db8::1."
  }
}

variable "host" {
  type        = string
  default     = "xmpp"
  description = "Label of the name that clients connect to, as in xmpp.example.com."

  validation {
    condition     = can(regex("^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", var.host))
    error_message = "A DNS label has a-z, 0-9 and '-' inside."
  }
}

variable "ttl" {
  type        = number
  default     = 300
  description = "Seconds that resolvers keep the records."

  validation {
    condition     = var.ttl >= 1 && var.ttl <= 86400 && floor(var.ttl) == var.ttl
    error_message = "Resolvers keep records for 1 to 86400 whole seconds."
  }
}
