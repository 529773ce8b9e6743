//! An API server in the process: objects of any kind in a map, server-side apply with field managers, subresources, deletion
//! with finalizers and preconditions, and faults. No schemas, no watches, no garbage collection.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use kube::{Client, client::Body};
use serde_json::{Map, Value, json};

/// Everything that is there, by path.
#[derive(Default)]
pub(crate) struct Objects {
    all: BTreeMap<String, Value>,
    /// What each manager has applied to an object.
    applied: BTreeMap<(String, String), Value>,
    /// Everything that our own objects were, the newest last.
    history: BTreeMap<String, Vec<Value>>,
    version: u64,
    /// Our own objects are answered as they were so many changes ago, as a reader of a watch might have them who does not say
    /// with a change what it is of.
    pub(crate) behind: usize,
    /// Nobody is answered.
    pub(crate) is_down: bool,
    /// Requests that changed something, in their order.
    pub(crate) writes: Vec<String>,
    /// Group, resource and verb of every request.
    pub(crate) asked: BTreeSet<(String, String, String)>,
    /// The next requests of this kind fail: with this code, before or after they are done.
    pub(crate) faults: Vec<Fault>,
}

/// A request that fails.
#[derive(Clone, Debug)]
pub(crate) struct Fault {
    /// How many writes come before it.
    pub(crate) after: usize,
    pub(crate) code: u16,
    /// It is done, and the answer is lost.
    pub(crate) is_done: bool,
}

#[derive(Clone, Default)]
pub(crate) struct Server(pub(crate) Arc<Mutex<Objects>>);

struct Path {
    /// Of the object, without a subresource.
    object: String,
    collection: String,
    name: Option<String>,
    subresource: Option<String>,
    group: String,
    resource: String,
}

impl Path {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts[..] {
            ["api", _, ref rest @ ..] => ("", rest),
            ["apis", group, _, ref rest @ ..] => (group, rest),
            _ => return None,
        };
        let (space, rest) = match rest {
            ["namespaces", _, rest @ ..] if !rest.is_empty() => (2, rest),
            rest => (0, rest),
        };
        let (resource, rest) = rest.split_first()?;
        let head = parts.len() - rest.len();
        let collection = parts[..head].join("/");
        let _ = space;
        Some(Self {
            object: rest.first().map_or(collection.clone(), |name| format!("{collection}/{name}")),
            collection,
            name: rest.first().map(|name| (*name).to_owned()),
            subresource: rest.get(1).map(|name| (*name).to_owned()),
            group: group.to_owned(),
            resource: (*resource).to_owned(),
        })
    }
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move { Ok::<_, Infallible>(server.answer(request).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let answer = self.0.lock().unwrap().answer(&parts.method, &parts.uri, kind, body);
        let (code, value) = answer.unwrap_or_else(|code| {
            let reason = match code {
                404 => "NotFound",
                409 => "Conflict",
                _ => "InternalError",
            };
            (code, json!({ "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": reason }))
        });
        let status = StatusCode::from_u16(code).unwrap();
        Response::builder().status(status).body(Body::from(value.to_string().into_bytes())).unwrap()
    }

    /// Puts an object there as somebody else does.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut objects = self.0.lock().unwrap();
        objects.store(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.0.lock().unwrap().all.get(path).cloned()
    }

    /// An object as it was so many changes ago.
    pub(crate) fn get_old(&self, path: &str, changes: usize) -> Option<Value> {
        let objects = self.0.lock().unwrap();
        let history = objects.history.get(path)?;
        history.get(history.len().saturating_sub(1 + changes)).cloned()
    }

    /// Changes an object as somebody else does.
    pub(crate) fn change(&self, path: &str, change: impl FnOnce(&mut Value)) {
        let mut objects = self.0.lock().unwrap();
        let mut object = objects.all.get(path).cloned().unwrap_or_else(|| panic!("no {path}"));
        change(&mut object);
        objects.store(path, object);
    }

    pub(crate) fn remove(&self, path: &str) {
        self.0.lock().unwrap().forget(path);
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.0.lock().unwrap().all.keys().cloned().collect()
    }

    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().writes)
    }
}

type Answer = Result<(u16, Value), u16>;

impl Objects {
    fn answer(&mut self, method: &Method, uri: &http::Uri, kind: &str, body: Value) -> Answer {
        if self.is_down {
            return Err(503);
        }
        let query: BTreeMap<String, String> = uri
            .query()
            .unwrap_or_default()
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key.to_owned(), decoded(value)))
            .collect();
        let path = Path::parse(uri.path()).ok_or(404_u16)?;
        let verb = match (method.as_str(), &path.name) {
            ("GET", None) => "list",
            ("GET", Some(_)) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            _ => "delete",
        };
        let resource = match &path.subresource {
            Some(below) => format!("{}/{below}", path.resource),
            None => path.resource.clone(),
        };
        self.asked.insert((path.group.clone(), resource.clone(), verb.to_owned()));
        if ["get", "list"].contains(&verb) {
            return if verb == "get" { self.found(&path) } else { Ok((200, self.list(&path, &query))) };
        }
        let fault = self.faults.iter().position(|fault| fault.after == 0);
        self.faults.iter_mut().for_each(|fault| fault.after = fault.after.saturating_sub(1));
        let fault = fault.map(|at| self.faults.remove(at));
        if let Some(fault) = fault.as_ref().filter(|fault| !fault.is_done) {
            return Err(fault.code);
        }
        self.writes.push(format!("{verb} {resource} {}", path.name.clone().unwrap_or_default()));
        let done = match verb {
            "create" => self.create(&path, body),
            "delete" => self.delete(&path, &body),
            "update" => self.update(&path, body),
            _ => self.patch(&path, kind, query.get("fieldManager").map_or("", String::as_str), body),
        };
        match fault {
            Some(fault) => Err(fault.code),
            None => done,
        }
    }

    fn found(&self, path: &Path) -> Answer {
        let old = self.history.get(&path.object).filter(|_| self.behind > 0);
        if let (Some(old), true) = (old, self.all.contains_key(&path.object)) {
            let at = old.len().saturating_sub(1 + self.behind);
            return Ok((200, old[at].clone()));
        }
        self.all.get(&path.object).map(|object| (200, object.clone())).ok_or(404)
    }

    fn list(&self, path: &Path, query: &BTreeMap<String, String>) -> Value {
        let selector = query.get("labelSelector").cloned().unwrap_or_default();
        let wanted: Vec<_> = selector.split(',').filter_map(|pair| pair.split_once('=')).collect();
        let fits =
            |object: &Value| wanted.iter().all(|(key, value)| object["metadata"]["labels"][*key] == **value);
        let below = format!("{}/", path.collection);
        let items: Vec<_> = self
            .all
            .iter()
            .filter(|(at, object)| {
                at.strip_prefix(&below).is_some_and(|name| !name.contains('/')) && fits(object)
            })
            .map(|(_, object)| object.clone())
            .collect();
        json!({ "kind": "List", "apiVersion": "v1", "metadata": { "resourceVersion": self.version.to_string() }, "items": items })
    }

    fn create(&mut self, path: &Path, body: Value) -> Answer {
        let name = body["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let at = format!("{}/{name}", path.collection);
        if self.all.contains_key(&at) {
            return Err(409);
        }
        Ok((201, self.store(&at, body)))
    }

    fn update(&mut self, path: &Path, body: Value) -> Answer {
        let old = self.all.get(&path.object).ok_or(404_u16)?;
        if old["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"] {
            return Err(409);
        }
        Ok((200, self.store(&path.object, body)))
    }

    fn delete(&mut self, path: &Path, body: &Value) -> Answer {
        let (_, object) = self.found(path)?;
        for field in ["uid", "resourceVersion"] {
            let wanted = &body["preconditions"][field];
            if !wanted.is_null() && *wanted != object["metadata"][field] {
                return Err(409);
            }
        }
        if object["metadata"]["finalizers"].as_array().is_some_and(|all| !all.is_empty()) {
            let mut object = object.clone();
            object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            self.store(&path.object, object);
        } else {
            self.forget(&path.object);
        }
        Ok((200, json!({ "kind": "Status", "status": "Success", "code": 200 })))
    }

    fn forget(&mut self, path: &str) {
        self.all.remove(path);
        self.history.remove(path);
        self.applied.retain(|(at, _), _| at != path && !at.starts_with(&format!("{path}#")));
    }

    fn patch(&mut self, path: &Path, kind: &str, manager: &str, body: Value) -> Answer {
        let old = self.all.get(&path.object).cloned();
        let mut object = old.clone().unwrap_or_else(|| json!({}));
        match kind {
            "application/apply-patch+yaml" => {
                if old.is_none() && path.subresource.is_some() {
                    return Err(404);
                }
                let version = &body["metadata"]["resourceVersion"];
                if self.behind == 0 && !version.is_null() && *version != object["metadata"]["resourceVersion"]
                {
                    return Err(409);
                }
                let at = path
                    .subresource
                    .as_ref()
                    .map_or(path.object.clone(), |below| format!("{}#{below}", path.object));
                let key = (at, manager.to_owned());
                let before = self.applied.insert(key, body.clone());
                if let Some(before) = before {
                    let others = self.others(&path.object, manager);
                    withdraw(&mut object, &before, &body, &others);
                }
                merge(&mut object, &body);
                object["metadata"]["managedFields"] = self.managed(&path.object);
            }
            // Lists of conditions are merged by type.
            "application/strategic-merge-patch+json" => {
                old.as_ref().ok_or(404_u16)?;
                for condition in body["status"]["conditions"].as_array().into_iter().flatten() {
                    let all = object["status"]["conditions"].as_array_mut();
                    let mut kept: Vec<_> = all.map(std::mem::take).unwrap_or_default();
                    kept.retain(|other| other["type"] != condition["type"]);
                    kept.push(condition.clone());
                    object["status"]["conditions"] = json!(kept);
                }
            }
            _ => {
                old.as_ref().ok_or(404_u16)?;
                let version = &body["metadata"]["resourceVersion"];
                if self.behind == 0 && !version.is_null() && *version != object["metadata"]["resourceVersion"]
                {
                    return Err(409);
                }
                merge(&mut object, &body);
            }
        }
        let is_gone = !object["metadata"]["deletionTimestamp"].is_null()
            && object["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty);
        let stored = self.store(&path.object, object);
        if is_gone {
            self.forget(&path.object);
        }
        Ok((200, stored))
    }

    fn store(&mut self, at: &str, mut object: Value) -> Value {
        let old = self.all.get(at);
        let same = |field: &str| old.is_some_and(|old| old[field] == object[field]);
        let generation = old.and_then(|old| old["metadata"]["generation"].as_i64()).unwrap_or(0);
        let generation = if same("spec") { generation } else { generation + 1 };
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = json!(format!("uid-{}", self.version));
        }
        object["metadata"]["generation"] = json!(generation);
        let without = |value: &Value| {
            let mut value = value.clone();
            value["metadata"]["resourceVersion"].take();
            value
        };
        if old.is_none_or(|old| without(old) != without(&object)) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        }
        self.all.insert(at.to_owned(), object.clone());
        if at.contains("novacron.io") {
            self.history.entry(at.to_owned()).or_default().push(object.clone());
        }
        object
    }

    fn others(&self, at: &str, manager: &str) -> Vec<Value> {
        let of = |((path, by), applied): (&(String, String), &Value)| {
            (path == at && by != manager).then(|| applied.clone())
        };
        self.applied.iter().filter_map(of).collect()
    }

    fn managed(&self, at: &str) -> Value {
        let of = self.applied.iter().filter(|((path, _), _)| path == at);
        of.map(|((_, manager), applied)| {
            json!({ "manager": manager, "operation": "Apply", "fieldsType": "FieldsV1", "fieldsV1": fields(applied) })
        })
        .collect()
    }
}

/// What was applied before by the same manager and is not any more goes, unless somebody else has applied it.
fn withdraw(object: &mut Value, before: &Value, now: &Value, others: &[Value]) {
    let (Some(object), Some(before)) = (object.as_object_mut(), before.as_object()) else { return };
    for (key, value) in before {
        let below: Vec<_> =
            others.iter().map(|other| other[key].clone()).filter(|other| !other.is_null()).collect();
        if now[key].is_null() && below.is_empty() {
            object.remove(key);
        } else if let Some(field) = object.get_mut(key) {
            withdraw(field, value, &now[key], &below);
        }
    }
}

fn merge(object: &mut Value, patch: &Value) {
    let Some(patch) = patch.as_object() else {
        *object = patch.clone();
        return;
    };
    if !object.is_object() {
        *object = Value::Object(Map::new());
    }
    for (key, value) in patch {
        merge(&mut object[key], value);
    }
}

fn fields(value: &Value) -> Value {
    let fields = value.as_object().into_iter().flatten();
    Value::Object(fields.map(|(key, below)| (format!("f:{key}"), fields_below(below))).collect())
}

fn fields_below(value: &Value) -> Value {
    if value.is_object() { fields(value) } else { json!({}) }
}

fn decoded(text: &str) -> String {
    let mut bytes = text.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16)).unwrap_or(0) as u8;
        out.push(match byte {
            b'%' => digit(bytes.next()) * 16 + digit(bytes.next()),
            b'+' => b' ',
            other => other,
        });
    }
    String::from_utf8_lossy(&out).into_owned()
}
