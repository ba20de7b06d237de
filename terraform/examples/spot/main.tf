# Everything above the first node on spot instances, of several types.

provider "aws" {
  region = "eu-west-1"
}

module "cirrus" {
  source          = "../.."
  domain          = "example.com"
  spot_percentage = 100
  instance_types  = ["t4g.medium", "m6g.medium", "m7g.medium", "c7g.medium"]
  size            = { min = 2, max = 20 }
}

output "dns_records" {
  description = "Every DNS record that is needed."
  value       = module.cirrus.dns_records
}
