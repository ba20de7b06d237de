variable "domains" {
  type        = list(string)
  description = "The XMPP domains."
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
  description = "The load balancer; null when nodes publish their own addresses."
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
  description = "Seconds that resolvers keep the SRV records."
}
