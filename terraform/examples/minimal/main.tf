# A whole cluster for one domain.

provider "aws" {
  region = "eu-west-1"
}

module "cirrus" {
  source = "../.."
  domain = "example.com"
}

output "dns_records" {
  description = "Every DNS record that is needed."
  value       = module.cirrus.dns_records
}
