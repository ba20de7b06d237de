//! Calls to DynamoDB.

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, KeySchemaElement, KeyType as AwsKeyType,
    PointInTimeRecoverySpecification, PointInTimeRecoveryStatus, ScalarAttributeType,
    TableDescription, TableStatus as AwsStatus, TimeToLiveSpecification, TimeToLiveStatus,
};
use cirrus_cloud::{Class, Refusal};
use cirrus_schema::{Billing, KeyType, TableEncryption, TableSpec};

use crate::provision::{FoundTable, TableStatus, TableStep};

/// DynamoDB.
#[derive(Clone)]
pub(super) struct Tables {
    client: Client,
}

impl Tables {
    pub(super) fn new(sdk: &SdkConfig, endpoint: Option<&str>) -> Self {
        let mut builder = aws_sdk_dynamodb::config::Builder::from(sdk);
        // Without one in the configuration, the environment's holds.
        if let Some(endpoint) = endpoint {
            builder.set_endpoint_url(Some(endpoint.to_owned()));
        }
        Self {
            client: Client::from_conf(builder.build()),
        }
    }

    /// The table as it is; `None` if there is none.
    pub(super) async fn describe(&self, name: &str) -> Result<Option<FoundTable>, Refusal> {
        let described = self.client.describe_table().table_name(name).send().await;
        let table = match described {
            Ok(output) => output.table,
            Err(error) => {
                let refusal = Refusal::of(name, "DescribeTable", &error);
                let absent = refusal.code.as_deref() == Some("ResourceNotFoundException");
                return if absent { Ok(None) } else { Err(refusal) };
            }
        };
        let Some(table) = table else {
            return Err(nonsense(name, "DescribeTable"));
        };
        let mut found = found(&table).ok_or_else(|| nonsense(name, "DescribeTable"))?;
        // The other two calls fail while a table is being made.
        if matches!(found.status, TableStatus::Active | TableStatus::Updating) {
            found.ttl_attribute = self.ttl(name).await?;
            found.point_in_time_recovery = self.recovery(name).await?;
        }
        Ok(Some(found))
    }

    async fn ttl(&self, name: &str) -> Result<Option<String>, Refusal> {
        const CALL: &str = "DescribeTimeToLive";
        let sent = self
            .client
            .describe_time_to_live()
            .table_name(name)
            .send()
            .await;
        let output = sent.map_err(|e| Refusal::of(name, CALL, &e))?;
        let ttl = output.time_to_live_description;
        let on = |s: Option<&TimeToLiveStatus>| {
            matches!(
                s,
                Some(TimeToLiveStatus::Enabled | TimeToLiveStatus::Enabling)
            )
        };
        Ok(ttl
            .filter(|t| on(t.time_to_live_status()))
            .and_then(|t| t.attribute_name))
    }

    async fn recovery(&self, name: &str) -> Result<bool, Refusal> {
        const CALL: &str = "DescribeContinuousBackups";
        let sent = self
            .client
            .describe_continuous_backups()
            .table_name(name)
            .send()
            .await;
        let output = sent.map_err(|e| Refusal::of(name, CALL, &e))?;
        let backups = output.continuous_backups_description;
        let recovery = backups.and_then(|b| b.point_in_time_recovery_description);
        let status = recovery.and_then(|r| r.point_in_time_recovery_status);
        Ok(status == Some(PointInTimeRecoveryStatus::Enabled))
    }

    /// Makes one call.
    pub(super) async fn perform(
        &self,
        name: &str,
        spec: &TableSpec,
        step: TableStep,
    ) -> Result<(), Refusal> {
        match step {
            TableStep::Create => self.create(name, spec).await,
            TableStep::Recovery => self.switch_recovery_on(name).await,
            TableStep::Ttl => self.switch_ttl_on(name, spec).await,
        }
    }

    async fn create(&self, name: &str, spec: &TableSpec) -> Result<(), Refusal> {
        const CALL: &str = "CreateTable";
        let mut request = self.client.create_table().table_name(name);
        let keys = [
            (spec.partition_key, AwsKeyType::Hash),
            (spec.sort_key, AwsKeyType::Range),
        ];
        for ((attribute, kind), role) in keys {
            let kind = match kind {
                KeyType::Binary => ScalarAttributeType::B,
            };
            let definition = AttributeDefinition::builder()
                .attribute_name(attribute)
                .attribute_type(kind)
                .build()
                .map_err(|e| unbuilt(name, CALL, &e))?;
            let element = KeySchemaElement::builder()
                .attribute_name(attribute)
                .key_type(role)
                .build()
                .map_err(|e| unbuilt(name, CALL, &e))?;
            request = request
                .attribute_definitions(definition)
                .key_schema(element);
        }
        let billing = match spec.billing {
            Billing::OnDemand => BillingMode::PayPerRequest,
        };
        // Without an SSE specification the provider's own key is used.
        let TableEncryption::ProviderKey = spec.encryption;
        let request = request.billing_mode(billing);
        let request = request.deletion_protection_enabled(spec.deletion_protection);
        request
            .send()
            .await
            .map(drop)
            .map_err(|e| Refusal::of(name, CALL, &e))
    }

    async fn switch_recovery_on(&self, name: &str) -> Result<(), Refusal> {
        const CALL: &str = "UpdateContinuousBackups";
        let specification = PointInTimeRecoverySpecification::builder()
            .point_in_time_recovery_enabled(true)
            .build()
            .map_err(|e| unbuilt(name, CALL, &e))?;
        let request = self.client.update_continuous_backups().table_name(name);
        let request = request.point_in_time_recovery_specification(specification);
        request
            .send()
            .await
            .map(drop)
            .map_err(|e| Refusal::of(name, CALL, &e))
    }

    async fn switch_ttl_on(&self, name: &str, spec: &TableSpec) -> Result<(), Refusal> {
        const CALL: &str = "UpdateTimeToLive";
        let specification = TimeToLiveSpecification::builder()
            .attribute_name(spec.ttl_attribute)
            .enabled(true)
            .build()
            .map_err(|e| unbuilt(name, CALL, &e))?;
        let request = self.client.update_time_to_live().table_name(name);
        let request = request.time_to_live_specification(specification);
        request
            .send()
            .await
            .map(drop)
            .map_err(|e| Refusal::of(name, CALL, &e))
    }
}

fn found(table: &TableDescription) -> Option<FoundTable> {
    let key = |role: &AwsKeyType| {
        let element = table.key_schema().iter().find(|k| k.key_type() == role)?;
        let name = element.attribute_name();
        let attributes = table.attribute_definitions();
        let definition = attributes.iter().find(|d| d.attribute_name() == name)?;
        Some((
            name.to_owned(),
            definition.attribute_type().as_str().to_owned(),
        ))
    };
    let status = match table.table_status() {
        Some(AwsStatus::Active) => TableStatus::Active,
        Some(AwsStatus::Creating) => TableStatus::Creating,
        Some(AwsStatus::Updating) => TableStatus::Updating,
        Some(AwsStatus::Deleting) => TableStatus::Deleting,
        _ => TableStatus::Other,
    };
    let billing = table.billing_mode_summary().and_then(|b| b.billing_mode());
    Some(FoundTable {
        status,
        partition_key: key(&AwsKeyType::Hash)?,
        sort_key: key(&AwsKeyType::Range),
        on_demand: billing == Some(&BillingMode::PayPerRequest),
        deletion_protection: table.deletion_protection_enabled().unwrap_or(false),
        point_in_time_recovery: false,
        ttl_attribute: None,
    })
}

/// An answer without what every answer has.
fn nonsense(name: &str, call: &'static str) -> Refusal {
    Refusal {
        object: name.to_owned(),
        call,
        code: None,
        status: None,
        message: "the answer has no table, or no keys".into(),
        class: Class::Refused,
    }
}

/// A request that could not be built: a fault of this program.
fn unbuilt(name: &str, call: &'static str, error: &dyn std::error::Error) -> Refusal {
    let (object, message) = (name.to_owned(), error.to_string());
    Refusal {
        object,
        call,
        code: None,
        status: None,
        message,
        class: Class::Refused,
    }
}
