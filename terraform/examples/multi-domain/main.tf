# One cluster for several domains, whose records are made in their hosted zones.

provider "aws" {
  region = "eu-west-1"
}

variable "zone_ids" {
  type        = map(string)
  description = "Route 53 hosted zone of each domain."
}

module "cirrus" {
  source       = "../.."
  domain       = "example.com"
  more_domains = ["example.org", "example.net"]
  zone_ids     = var.zone_ids
}

output "dns_records" {
  description = "Every DNS record that is needed."
  value       = module.cirrus.dns_records
}
