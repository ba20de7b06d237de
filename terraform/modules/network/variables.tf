variable "name" {
  type        = string
  description = "Name of the network and of what is in it."
}

variable "cidr" {
  type        = string
  default     = "10.64.0.0/16"
  description = "Address range of the VPC; each zone gets a /20 of it."

  validation {
    condition     = can(cidrhost(var.cidr, 0)) && tonumber(split("/", var.cidr)[1]) <= 18
    error_message = "The range must be a valid IPv4 CIDR of /18 or larger."
  }
}

variable "zones" {
  type        = number
  default     = 3
  description = "How many availability zones to spread over: 2 or 3."

  validation {
    condition     = contains([2, 3], var.zones)
    error_message = "A cluster spreads over 2 or 3 availability zones."
  }
}

variable "tags" {
  type        = map(string)
  default     = {}
  description = "Tags of everything that can have them."
}
