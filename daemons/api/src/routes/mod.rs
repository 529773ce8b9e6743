//! What there is at which path, and the OpenAPI document that is made of it.

mod agents;
mod audit;
pub(crate) mod events;
mod health;
mod jobs;
mod members;
pub(crate) mod migrations;
pub(crate) mod nodes;
mod page;
mod regions;
mod schedules;
pub(crate) mod tokens;
mod transfers;
pub(crate) mod vms;

use std::sync::Arc;

use axum::{
    Router,
    http::{Method, Uri},
    middleware::from_fn_with_state,
    routing::{MethodFilter, get, on},
};
use utoipa::{
    Modify, OpenApi,
    openapi::{
        Content, HeaderBuilder, OpenApi as Document, PathItem, Ref, RefOr, Response, ResponseBuilder,
        path::Operation,
        security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme},
    },
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    auth::rules::{Rule, Rules},
    http::{
        layer,
        problem::{self, Kind, Problem},
    },
};

/// Short names, and what they are short for.
pub(crate) const ALIASES: [(&str, &str); 3] = [
    ("/api/vms", "/api/v1/vms"),
    ("/api/vms/{name}", "/api/v1/vms/{name}"),
    ("/api/health", "/api/v1/health"),
];

#[derive(OpenApi)]
#[openapi(
    info(
        title = "NovaCron",
        description = "Virtual machines, nodes, members of the store, and jobs. Errors are problem documents (RFC 9457)."
    ),
    components(schemas(problem::Document)),
    modifiers(&Logins),
    tags(
        (name = "vms", description = "The inventory of virtual machines"),
        (name = "jobs", description = "What takes longer than a request"),
        (name = "migrations", description = "VMs' data on its way between nodes"),
        (name = "schedules", description = "What makes jobs at its times"),
        (name = "cluster", description = "Nodes and members of the store"),
        (name = "tokens", description = "API tokens"),
        (name = "audit", description = "Records of changes"),
        (name = "health", description = "Of this replica"),
        (name = "page", description = "The page for people on call"),
    )
)]
struct Base;

/// The ways to log in.
struct Logins;

const LOGINS: [&str; 3] = ["token", "jwt", "certificate"];

impl Modify for Logins {
    fn modify(&self, document: &mut Document) {
        let bearer = |format: &str, description: &str| {
            let scheme = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format(format);
            SecurityScheme::Http(scheme.description(Some(description)).build())
        };
        let certificate = SecurityScheme::MutualTls {
            description: Some(
                "A certificate of the authority that the server names in its handshake".to_owned(),
            ),
            extensions: None,
            deprecated: None,
        };
        let schemes = [
            bearer("nct_ID_SECRET", "An API token, of /api/v1/tokens"),
            bearer("JWT", "A token of the OpenID Connect provider that the server is set up for"),
            certificate,
        ];
        let components = document.components.get_or_insert_default();
        for (name, scheme) in LOGINS.into_iter().zip(schemes) {
            components.add_security_scheme(name, scheme);
        }
    }
}

/// All routes, and the document that describes them.
pub(crate) fn routes() -> (Router<Arc<App>>, Document) {
    let (router, mut document) = OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(vms::list, vms::create))
        .routes(routes!(vms::get, vms::replace, vms::remove))
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::get))
        .routes(routes!(events::follow))
        .routes(routes!(jobs::cancel))
        .routes(routes!(migrations::list, migrations::create))
        .routes(routes!(migrations::get))
        .routes(routes!(migrations::follow))
        .routes(routes!(migrations::cancel))
        .routes(routes!(schedules::list, schedules::create))
        .routes(routes!(schedules::get, schedules::replace, schedules::remove))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get))
        .routes(routes!(agents::paths))
        .routes(routes!(agents::transfers))
        .routes(routes!(agents::capabilities))
        .routes(routes!(transfers::list))
        .routes(routes!(transfers::cancel))
        .routes(routes!(regions::list))
        .routes(routes!(regions::get))
        .routes(routes!(agents::matrix))
        .routes(routes!(members::list))
        .routes(routes!(tokens::list, tokens::create))
        .routes(routes!(tokens::get, tokens::revoke))
        .routes(routes!(audit::list))
        .routes(routes!(health::health))
        .routes(routes!(health::healthz))
        .routes(routes!(health::ready))
        .routes(routes!(health::startup))
        .routes(routes!(health::openapi))
        .routes(routes!(page::html))
        .routes(routes!(page::script))
        .routes(routes!(page::style))
        .routes(routes!(page::icon))
        .split_for_parts();
    let router = router
        .route("/api/vms", get(vms::list).post(vms::create))
        .route("/api/vms/{name}", get(vms::get).put(vms::replace).delete(vms::remove))
        .route("/api/health", on(MethodFilter::GET, health::health));
    for (alias, path) in ALIASES {
        let mut item = document.paths.paths.get(path).expect("aliases are of what there is").clone();
        for (_, operation) in operations(&mut item) {
            operation.operation_id = operation.operation_id.as_ref().map(|id| format!("{id}_alias"));
            operation.description = Some(format!("The same as at {path}."));
        }
        document.paths.paths.insert(alias.to_owned(), item);
    }
    describe_rules(&mut document);
    (router, document)
}

/// Puts the rules and what they answer onto each operation.
///
/// # Panics
/// If there is an operation without a rule: nobody could use it.
fn describe_rules(document: &mut Document) {
    let rules = Rules::new(&ALIASES);
    let mut described = 0;
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let rule = rules.find(&method, path);
            describe_rule(operation, rule.unwrap_or_else(|| panic!("no rule for {method} {path}")));
            described += 1;
        }
    }
    assert_eq!(described, rules.count(), "every rule is for an operation");
}

fn describe_rule(operation: &mut Operation, rule: Rule) {
    let role = rule.role().map(|role| role.to_string());
    let requirements = LOGINS.map(|login| SecurityRequirement::new(login, role.as_slice()));
    operation.security = Some(role.iter().flat_map(|_| requirements.clone()).collect());
    let mut answers = vec![("default", "A problem document, RFC 9457")];
    if role.is_some() {
        answers.extend([
            ("401", "Nothing proves who asks"),
            ("403", "The principal has not the role that this needs; `required` names it"),
            ("429", "There are too many requests"),
        ]);
    }
    for (status, description) in answers {
        operation.responses.responses.insert(status.to_owned(), problem_response(status, description).into());
    }
}

fn problem_response(status: &str, description: &str) -> Response {
    let content = Content::new(Some(RefOr::<utoipa::openapi::Schema>::Ref(Ref::from_schema_name("Problem"))));
    let mut response =
        ResponseBuilder::new().description(description).content("application/problem+json", content);
    let headers: &[_] = match status {
        "401" => &["WWW-Authenticate"],
        "429" => &["Retry-After", "RateLimit", "RateLimit-Policy"],
        _ => &[],
    };
    for header in headers {
        response = response.header(*header, HeaderBuilder::new().build());
    }
    response.build()
}

/// Answers, once it is known what all of them share.
pub(crate) fn service(router: Router<Arc<App>>, app: Arc<App>) -> Router {
    router
        .fallback(|uri: Uri| async move { Problem::new(Kind::NoRoute, uri.path()) })
        .method_not_allowed_fallback(|| async {
            Problem::new(Kind::MethodNotAllowed, "the header Allow says which it has")
        })
        .layer(from_fn_with_state(app.clone(), layer::around))
        .with_state(app)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    let PathItem { get, put, post, delete, .. } = item;
    let all = [(Method::GET, get), (Method::PUT, put), (Method::POST, post), (Method::DELETE, delete)];
    all.into_iter().filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::to_value(routes().1).unwrap()
    }

    #[test]
    fn the_document_is_of_openapi_3_1_and_refers_to_what_it_has() {
        let document = document();
        assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
        fn check(root: &Value, value: &Value) {
            match value {
                Value::Object(fields) => {
                    if let Some(Value::String(to)) = fields.get("$ref") {
                        assert!(root.pointer(to.strip_prefix('#').unwrap()).is_some(), "{to}");
                    }
                    fields.values().for_each(|value| check(root, value));
                }
                Value::Array(values) => values.iter().for_each(|value| check(root, value)),
                _ => {}
            }
        }
        check(&document, &document);
    }

    #[test]
    fn operations_have_distinct_ids_answers_and_the_parameters_of_their_paths() {
        let document = document();
        let mut ids = HashSet::new();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                let id = operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path}"));
                assert!(ids.insert(id.to_owned()), "{id} twice");
                assert!(operation["responses"].as_object().unwrap().len() > 1, "{method} {path}");
                let named = path.matches('{').count();
                let parameters = operation["parameters"].as_array().map_or(0, |parameters| {
                    parameters.iter().filter(|parameter| parameter["in"] == "path").count()
                });
                assert_eq!(parameters, named, "{method} {path}");
            }
        }
        assert!(ids.len() > 15);
    }
}
