//! What there is at which path, and the OpenAPI document that is made of it.

mod health;
mod jobs;
mod members;
mod migrations;
pub(crate) mod nodes;
pub(crate) mod vms;

use std::sync::Arc;

use axum::{
    Router,
    http::Uri,
    middleware::from_fn_with_state,
    routing::{MethodFilter, get, on},
};
use utoipa::{
    OpenApi,
    openapi::{Content, OpenApi as Document, PathItem, Ref, RefOr, ResponseBuilder, path::Operation},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    app::App,
    http::{
        layer,
        problem::{self, Kind, Problem},
    },
};

/// Short names, and what they are short for.
const ALIASES: [(&str, &str); 3] = [
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
    tags(
        (name = "vms", description = "The inventory of virtual machines"),
        (name = "jobs", description = "What takes longer than a request"),
        (name = "migrations", description = "VMs' data on its way between nodes"),
        (name = "cluster", description = "Nodes and members of the store"),
        (name = "health", description = "Of this replica"),
    )
)]
struct Base;

/// All routes, and the document that describes them.
pub(crate) fn routes() -> (Router<Arc<App>>, Document) {
    let (router, mut document) = OpenApiRouter::with_openapi(Base::openapi())
        .routes(routes!(vms::list, vms::create))
        .routes(routes!(vms::get, vms::replace, vms::remove))
        .routes(routes!(jobs::list, jobs::create))
        .routes(routes!(jobs::get))
        .routes(routes!(jobs::cancel))
        .routes(routes!(migrations::list, migrations::create))
        .routes(routes!(migrations::get))
        .routes(routes!(migrations::cancel))
        .routes(routes!(nodes::list))
        .routes(routes!(nodes::get))
        .routes(routes!(members::list))
        .routes(routes!(health::health))
        .routes(routes!(health::healthz))
        .routes(routes!(health::ready))
        .routes(routes!(health::startup))
        .routes(routes!(health::openapi))
        .split_for_parts();
    let router = router
        .route("/api/vms", get(vms::list).post(vms::create))
        .route("/api/vms/{name}", get(vms::get).put(vms::replace).delete(vms::remove))
        .route("/api/health", on(MethodFilter::GET, health::health));
    for (alias, path) in ALIASES {
        let mut item = document.paths.paths.get(path).expect("aliases are of what there is").clone();
        for operation in operations(&mut item) {
            operation.operation_id = operation.operation_id.as_ref().map(|id| format!("{id}_alias"));
            operation.description = Some(format!("The same as at {path}."));
        }
        document.paths.paths.insert(alias.to_owned(), item);
    }
    for item in document.paths.paths.values_mut() {
        for operation in operations(item) {
            let content =
                Content::new(Some(RefOr::<utoipa::openapi::Schema>::Ref(Ref::from_schema_name("Problem"))));
            let problem = ResponseBuilder::new()
                .description("A problem document, RFC 9457")
                .content("application/problem+json", content)
                .build();
            operation.responses.responses.insert("default".to_owned(), problem.into());
        }
    }
    (router, document)
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

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let PathItem { get, put, post, delete, .. } = item;
    [get, put, post, delete].into_iter().filter_map(Option::as_mut)
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
