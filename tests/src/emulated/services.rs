//! A strict double of what an instance asks of Parameter Store, Secrets Manager, Auto Scaling, EC2
//! and CloudWatch, written from their API references: eight calls, and their refusals.
//!
//! It takes no request that is not signed for the service that it is for. Lifecycle states move
//! as a test says, not by themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use cirrus_store::Target;
use cirrus_store::fault::Faults;
use serde_json::{Value, json};

use super::front::{Front, Request, Service};

/// The running double. It ends when this is dropped.
pub struct Services {
    front: Front,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    /// Type, value and version by name.
    parameters: BTreeMap<String, (&'static str, String, u32)>,
    secrets: BTreeMap<String, String>,
    /// By instance.
    groups: BTreeMap<String, Group>,
    metrics: Vec<Metric>,
    /// Tags by instance and key.
    tags: BTreeMap<(String, String), String>,
    denied: BTreeSet<&'static str>,
    calls: Vec<String>,
}

/// A figure that CloudWatch was given.
#[derive(Clone, Debug, PartialEq)]
pub struct Metric {
    /// The namespace.
    pub namespace: String,
    /// The name.
    pub name: String,
    /// Names and values, `Domain=example.com`.
    pub dimensions: Vec<String>,
    /// The value.
    pub value: f64,
    /// When it came, in milliseconds since 1970.
    pub at_ms: u64,
}

/// An autoscaling group as one of its instances sees it.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Its instance.
    pub instance: String,
    /// The states that the instance is seen in, one look each; it stays in the last one.
    pub states: Vec<&'static str>,
    /// Its launch hooks.
    pub hooks: Vec<&'static str>,
    /// So many completions are refused: there is no active action yet.
    pub early: u32,
    /// Hook and result of each completion.
    pub completed: Vec<(String, String)>,
    /// Seconds for which its terminate hook, `drain`, waits for a heartbeat.
    pub heartbeat_seconds: u32,
    /// Heartbeats of its terminate hook.
    pub heartbeats: u32,
}

impl Services {
    /// Starts with nothing in it.
    ///
    /// # Errors
    /// When no port can be had.
    pub fn start() -> Result<Services> {
        let state = Arc::new(Mutex::new(State::default()));
        let api = Api(Arc::clone(&state));
        // Every request is answered in front of it.
        let behind = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
        let front = Front::start(api, behind, Faults::none())?;
        Ok(Services { front, state })
    }

    /// The variables that name it.
    #[must_use]
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        [
            "AWS_ENDPOINT_URL_AUTO_SCALING",
            "AWS_ENDPOINT_URL_CLOUDWATCH",
            "AWS_ENDPOINT_URL_EC2",
            "AWS_ENDPOINT_URL_SECRETS_MANAGER",
            "AWS_ENDPOINT_URL_SSM",
        ]
        .map(|name| (name, self.front.endpoint()))
        .to_vec()
    }

    /// Puts a parameter of a type (`String`, `SecureString`); each time is a version.
    pub fn put_parameter(&self, name: &str, kind: &'static str, value: &str) {
        let parameters = &mut self.lock().parameters;
        let version = parameters
            .get(name)
            .map_or(1, |(_, _, version)| version + 1);
        parameters.insert(name.to_owned(), (kind, value.to_owned(), version));
    }

    /// Puts a secret.
    pub fn put_secret(&self, id: &str, value: &str) {
        let secrets = &mut self.lock().secrets;
        secrets.insert(id.to_owned(), value.to_owned());
    }

    /// Puts an instance into a group, and all others out of theirs.
    pub fn put_group(&self, group: Group) {
        self.lock().groups.clear();
        self.put_member(group);
    }

    /// Puts an instance into a group that may have others.
    pub fn put_member(&self, group: Group) {
        let groups = &mut self.lock().groups;
        groups.insert(group.instance.clone(), group);
    }

    /// Changes how an instance stands in its group.
    pub fn change(&self, instance: &str, change: impl FnOnce(&mut Group)) {
        if let Some(group) = self.lock().groups.get_mut(instance) {
            change(group);
        }
    }

    /// The group of the first instance, if there is one.
    #[must_use]
    pub fn group(&self) -> Option<Group> {
        self.lock().groups.values().next().cloned()
    }

    /// The group of an instance.
    #[must_use]
    pub fn member(&self, instance: &str) -> Option<Group> {
        self.lock().groups.get(instance).cloned()
    }

    /// Takes an instance out of its group.
    pub fn remove_member(&self, instance: &str) {
        self.lock().groups.remove(instance);
    }

    /// The figures that CloudWatch was given.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        self.lock().metrics.clone()
    }

    /// Refuses a call from now on, as without permission: `GetParameter`.
    pub fn deny(&self, call: &'static str) {
        self.lock().denied.insert(call);
    }

    /// Takes all calls again.
    pub fn allow(&self) {
        self.lock().denied.clear();
    }

    /// The value of an instance's tag.
    #[must_use]
    pub fn tag(&self, instance: &str, key: &str) -> Option<String> {
        let key = (instance.to_owned(), key.to_owned());
        self.lock().tags.get(&key).cloned()
    }

    /// The names of all calls so far.
    #[must_use]
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Api(Arc<Mutex<State>>);

/// Status and body of an answer.
type Answer = (u16, String);

impl Service for Api {
    fn target(&self, _request: &Request) -> Option<Target> {
        None
    }

    fn answer(&self, request: &Request) -> Option<Answer> {
        let mut state = lock(&self.0);
        Some(match request.headers.get("x-amz-target") {
            Some(target) => by_json(&mut state, request, target),
            None => by_form(&mut state, request),
        })
    }

    fn throttled(&self) -> (u16, &'static str) {
        (503, "")
    }

    fn failed(&self) -> (u16, &'static str) {
        (500, "")
    }

    fn media_type(&self) -> &'static str {
        "application/x-amz-json-1.1"
    }
}

/// Whether a request is signed for a service (as far as that can be seen without the key).
pub(super) fn signed_for(request: &Request, service: &str) -> bool {
    let scope = format!("/{service}/aws4_request");
    let header = request.headers.get("authorization");
    header.is_some_and(|h| h.starts_with("AWS4-HMAC-SHA256 ") && h.contains(&scope))
}

fn json_error(kind: &str, message: &str) -> Answer {
    let body = json!({ "__type": kind, "message": message });
    (400, body.to_string())
}

fn by_json(state: &mut State, request: &Request, target: &str) -> Answer {
    let (service, call) = target.split_once('.').unwrap_or_default();
    let signed = match service {
        "AmazonSSM" => "ssm",
        _ => "secretsmanager",
    };
    state.calls.push(call.to_owned());
    if !signed_for(request, signed) {
        return json_error(
            "IncompleteSignatureException",
            "not signed for this service",
        );
    }
    if state.denied.contains(call) {
        let message = format!("User: node is not authorized to perform: {signed}:{call}");
        return json_error("AccessDeniedException", &message);
    }
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    match target {
        "AmazonSSM.GetParameter" => parameter(state, &body),
        "secretsmanager.GetSecretValue" => secret(state, &body),
        _ => json_error("UnknownOperationException", target),
    }
}

fn parameter(state: &State, body: &Value) -> Answer {
    let name = body["Name"].as_str().unwrap_or_default();
    let (plain, version) = match name.rsplit_once(':') {
        Some((plain, version)) => (plain, Some(version)),
        None => (name, None),
    };
    let Some((kind, value, current)) = state.parameters.get(plain) else {
        return json_error("ParameterNotFound", "");
    };
    if version.is_some_and(|version| version != current.to_string()) {
        return json_error("ParameterVersionNotFound", "");
    }
    let sealed = *kind == "SecureString" && body["WithDecryption"] != true;
    let value = if sealed { "AQICAH" } else { value };
    let parameter = json!({
        "ARN": format!("arn:aws:ssm:eu-west-1:000000000000:parameter{plain}"),
        "DataType": "text", "LastModifiedDate": 1_760_000_000.5, "Name": plain,
        "Type": kind, "Value": value, "Version": current,
    });
    (200, json!({ "Parameter": parameter }).to_string())
}

fn secret(state: &State, body: &Value) -> Answer {
    let id = body["SecretId"].as_str().unwrap_or_default();
    let Some(value) = state.secrets.get(id) else {
        let message = "Secrets Manager can't find the specified secret.";
        return json_error("ResourceNotFoundException", message);
    };
    let answer = json!({
        "ARN": format!("arn:aws:secretsmanager:eu-west-1:000000000000:secret:{id}-AbCdEf"),
        "CreatedDate": 1_760_000_000.5, "Name": id, "SecretString": value,
        "VersionId": "EXAMPLE1-90ab-cdef-fedc-ba987SECRET1", "VersionStages": ["AWSCURRENT"],
    });
    (200, answer.to_string())
}

/// The calls whose parameters are a form and whose answers are XML.
fn by_form(state: &mut State, request: &Request) -> Answer {
    let form = form(&request.body);
    let get = |name: &str| form.get(name).cloned().unwrap_or_default();
    let call = get("Action");
    state.calls.push(call.clone());
    let ec2 = call == "CreateTags";
    let service = match call.as_str() {
        "CreateTags" => "ec2",
        "PutMetricData" => "monitoring",
        _ => "autoscaling",
    };
    if !signed_for(request, service) {
        return xml_error(ec2, "IncompleteSignature", "not signed for this service");
    }
    if state.denied.contains(call.as_str()) {
        let code = if ec2 {
            "UnauthorizedOperation"
        } else {
            "AccessDenied"
        };
        let message = format!("User: node is not authorized to perform: {service}:{call}");
        return xml_error(ec2, code, &message);
    }
    match call.as_str() {
        "CreateTags" => {
            let key = (get("ResourceId.1"), get("Tag.1.Key"));
            state.tags.insert(key, get("Tag.1.Value"));
            let answer = "<CreateTagsResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\">\
                          <requestId>r</requestId><return>true</return></CreateTagsResponse>";
            (200, answer.to_owned())
        }
        "DescribeAutoScalingInstances" => {
            let id = get("InstanceIds.member.1");
            let group = state
                .groups
                .get_mut(&id)
                .filter(|group| !id.is_empty() && group.instance == id);
            autoscaling(&call, &group.map_or_else(String::new, member))
        }
        "DescribeLifecycleHooks" => {
            let name = get("AutoScalingGroupName");
            match state.groups.values().find(|group| group.name == name) {
                Some(group) => autoscaling(&call, &hooks(group)),
                _ => xml_error(false, "ValidationError", "AutoScalingGroup name not found"),
            }
        }
        "CompleteLifecycleAction" => complete(state, &get),
        "RecordLifecycleActionHeartbeat" => heartbeat(state, &get),
        "PutMetricData" => put_metrics(state, &form),
        _ => xml_error(ec2, "InvalidAction", &call),
    }
}

fn member(group: &mut Group) -> String {
    let state = match group.states.as_slice() {
        [] => "InService",
        [last] => last,
        _ => group.states.remove(0),
    };
    let (name, instance) = (&group.name, &group.instance);
    format!(
        "<AutoScalingInstances><member><InstanceId>{instance}</InstanceId>\
         <AutoScalingGroupName>{name}</AutoScalingGroupName>\
         <AvailabilityZone>eu-west-1a</AvailabilityZone><HealthStatus>HEALTHY</HealthStatus>\
         <LifecycleState>{state}</LifecycleState>\
         <ProtectedFromScaleIn>false</ProtectedFromScaleIn></member></AutoScalingInstances>"
    )
}

fn hooks(group: &Group) -> String {
    let (name, seconds) = (&group.name, group.heartbeat_seconds.max(30));
    let hook = |(hook, transition): (&str, &str)| {
        format!(
            "<member><LifecycleHookName>{hook}</LifecycleHookName>\
             <AutoScalingGroupName>{name}</AutoScalingGroupName>\
             <LifecycleTransition>autoscaling:{transition}</LifecycleTransition>\
             <HeartbeatTimeout>{seconds}</HeartbeatTimeout>\
             <DefaultResult>ABANDON</DefaultResult></member>"
        )
    };
    let launching = group
        .hooks
        .iter()
        .map(|name| (*name, "EC2_INSTANCE_LAUNCHING"));
    let all = launching.chain([("drain", "EC2_INSTANCE_TERMINATING")]);
    let all: String = all.map(hook).collect();
    format!("<LifecycleHooks>{all}</LifecycleHooks>")
}

/// The group of the instance that a call names, if it has such a hook at which it waits; the state
/// that comes after it.
fn waiting<'a>(
    state: &'a mut State,
    get: &impl Fn(&str) -> String,
) -> Option<(&'a mut Group, &'static str)> {
    let group = state.groups.get_mut(&get("InstanceId"))?;
    if group.name != get("AutoScalingGroupName") {
        return None;
    }
    let (hook, at) = (get("LifecycleHookName"), *group.states.last()?);
    if at.ends_with("Pending:Wait") && group.hooks.contains(&hook.as_str()) {
        return Some((group, "InService"));
    }
    let goes = at.ends_with("Terminating:Wait") && hook == "drain";
    goes.then_some((group, "Terminating:Proceed"))
}

fn no_action(get: &impl Fn(&str) -> String) -> Answer {
    let instance = get("InstanceId");
    let message = format!("No active Lifecycle Action found with instance ID {instance}");
    xml_error(false, "ValidationError", &message)
}

fn complete(state: &mut State, get: &impl Fn(&str) -> String) -> Answer {
    match waiting(state, get) {
        Some((group, _)) if group.early > 0 => {
            group.early -= 1;
            no_action(get)
        }
        Some((group, next)) => {
            let result = (get("LifecycleHookName"), get("LifecycleActionResult"));
            group.completed.push(result);
            group.states = vec![next];
            autoscaling("CompleteLifecycleAction", "")
        }
        None => no_action(get),
    }
}

fn heartbeat(state: &mut State, get: &impl Fn(&str) -> String) -> Answer {
    match waiting(state, get) {
        Some((group, _)) => {
            group.heartbeats += 1;
            autoscaling("RecordLifecycleActionHeartbeat", "")
        }
        None => no_action(get),
    }
}

/// Takes figures; each has a name, a value and a unit, and all come or none.
fn put_metrics(state: &mut State, form: &BTreeMap<String, String>) -> Answer {
    let namespace = form.get("Namespace").filter(|name| !name.is_empty());
    let version = form.get("Version").map(String::as_str);
    let members = (1..).map(|n| format!("MetricData.member.{n}"));
    let members = members.take_while(|it| form.contains_key(&format!("{it}.MetricName")));
    let metric = |member: String| {
        let get = |name: &str| form.get(&format!("{member}.{name}")).cloned();
        let dimension = |n: usize| {
            let name = get(&format!("Dimensions.member.{n}.Name"))?;
            Some(format!(
                "{name}={}",
                get(&format!("Dimensions.member.{n}.Value"))?
            ))
        };
        ["Count", "Seconds", "Percent"]
            .contains(&get("Unit")?.as_str())
            .then_some(())?;
        Some(Metric {
            namespace: namespace?.clone(),
            name: get("MetricName")?,
            dimensions: (1..).map_while(dimension).collect(),
            value: get("Value")?
                .parse()
                .ok()
                .filter(|it: &f64| it.is_finite())?,
            at_ms: now_ms(),
        })
    };
    let metrics: Option<Vec<Metric>> = members.map(metric).collect();
    match metrics {
        Some(metrics) if !metrics.is_empty() && version == Some("2010-08-01") => {
            state.metrics.extend(metrics);
            let answer = "<PutMetricDataResponse xmlns=\"http://monitoring.amazonaws.com/doc/\
                          2010-08-01/\"><ResponseMetadata><RequestId>r</RequestId>\
                          </ResponseMetadata></PutMetricDataResponse>";
            (200, answer.to_owned())
        }
        _ => xml_error(
            false,
            "InvalidParameterValue",
            "not figures of one namespace",
        ),
    }
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "figures have the real time")]
fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX))
}

fn autoscaling(call: &str, result: &str) -> Answer {
    let answer = format!(
        "<{call}Response xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
         <{call}Result>{result}</{call}Result>\
         <ResponseMetadata><RequestId>r</RequestId></ResponseMetadata></{call}Response>"
    );
    (200, answer)
}

fn xml_error(ec2: bool, code: &str, message: &str) -> Answer {
    let error = format!("<Code>{code}</Code><Message>{message}</Message>");
    let status = if code.starts_with("AccessDenied") || code.starts_with("Unauthorized") {
        403
    } else {
        400
    };
    let body = if ec2 {
        format!(
            "<Response><Errors><Error>{error}</Error></Errors><RequestID>r</RequestID></Response>"
        )
    } else {
        format!(
            "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
             <Error><Type>Sender</Type>{error}</Error><RequestId>r</RequestId></ErrorResponse>"
        )
    };
    (status, body)
}

/// The fields of a form (`application/x-www-form-urlencoded`).
fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let fields = text.split('&').filter_map(|field| field.split_once('='));
    fields
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

fn decoded(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |byte: Option<u8>| char::from(byte?).to_digit(16);
        match byte {
            b'+' => out.push(b' '),
            b'%' => {
                let (high, low) = (hex(bytes.next()), hex(bytes.next()));
                let value = high.zip(low).map(|(high, low)| high * 16 + low);
                out.extend(value.and_then(|value| u8::try_from(value).ok()));
            }
            byte => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_read() {
        let fields = form(b"Action=CreateTags&Tag.1.Key=cirrus%3Aboot&Tag.1.Value=fail+code%3Dx");
        assert_eq!(fields["Tag.1.Key"], "cirrus:boot");
        assert_eq!(fields["Tag.1.Value"], "fail code=x");
    }
}
