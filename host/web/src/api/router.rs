//! Contents page of the API: every operation, and the layers around them.

use axum::Router;
use axum::handler::Handler;
use axum::middleware;
use axum::routing::{self, MethodRouter};
use holdfast_control::Appliance;
use tokio_util::sync::CancellationToken;

use super::error::Problem;
use super::{
    Api, access, answer, backups, instances, jobs, keys, openapi, plugins, policies, repository, restores, status,
    targets,
};

/// One method on one path.
struct Operation {
    #[cfg_attr(not(test), allow(dead_code, reason = "the test compares it with the document"))]
    method: &'static str,
    path: &'static str,
    handler: MethodRouter<Api>,
}

/// All operations that need to know who asks.
fn operations() -> Vec<Operation> {
    vec![
        get("/api/v1/status", status::show),
        get("/api/v1/events", status::events),
        post("/api/v1/takeover", status::take_over),
        get("/api/v1/instances", instances::list),
        post("/api/v1/instances", instances::create),
        get("/api/v1/instances/{organization}/{project}/{name}", instances::show),
        delete("/api/v1/instances/{organization}/{project}/{name}", instances::remove),
        post("/api/v1/instances/{organization}/{project}/{name}/check", instances::check),
        get("/api/v1/backups", backups::list),
        get("/api/v1/backups/{organization}/{project}/{name}", backups::list_of_instance),
        post("/api/v1/backups/{organization}/{project}/{name}", backups::create),
        get("/api/v1/backups/{organization}/{project}/{name}/{backup}", backups::show),
        delete("/api/v1/backups/{organization}/{project}/{name}/{backup}", backups::remove),
        get("/api/v1/backups/{organization}/{project}/{name}/{backup}/entries", backups::entries),
        post("/api/v1/backups/{organization}/{project}/{name}/{backup}/verify", backups::verify),
        post("/api/v1/backups/{organization}/{project}/{name}/{backup}/hold", backups::hold),
        post("/api/v1/backups/{organization}/{project}/{name}/{backup}/release", backups::release),
        post("/api/v1/restores", restores::create),
        get("/api/v1/jobs", jobs::list),
        get("/api/v1/jobs/{id}", jobs::show),
        get("/api/v1/jobs/{id}/log", jobs::log),
        post("/api/v1/jobs/{id}/cancel", jobs::cancel),
        get("/api/v1/policies", policies::list),
        post("/api/v1/policies", policies::create),
        get("/api/v1/policies/{name}", policies::show),
        patch("/api/v1/policies/{name}", policies::edit),
        delete("/api/v1/policies/{name}", policies::remove),
        get("/api/v1/retention", policies::preview),
        post("/api/v1/retention/confirm", policies::confirm),
        get("/api/v1/targets", targets::list),
        post("/api/v1/targets", targets::create),
        get("/api/v1/targets/{name}", targets::show),
        patch("/api/v1/targets/{name}", targets::edit),
        delete("/api/v1/targets/{name}", targets::remove),
        post("/api/v1/targets/{name}/promote", targets::promote),
        post("/api/v1/targets/{name}/sync", targets::sync),
        get("/api/v1/keys/recipients", keys::list),
        post("/api/v1/keys/recipients", keys::add),
        delete("/api/v1/keys/recipients/{name}", keys::remove),
        post("/api/v1/keys/rotate", keys::rotate),
        post("/api/v1/keys/shred", keys::shred),
        get("/api/v1/repository/stats", repository::stats),
        post("/api/v1/repository/check", repository::check),
        post("/api/v1/repository/prune", repository::prune),
        get("/api/v1/plugins", plugins::list),
        post("/api/v1/plugins", plugins::install),
        get("/api/v1/plugins/{name}", plugins::show),
        delete("/api/v1/plugins/{name}", plugins::remove),
    ]
}

/// Operations for anybody.
fn open_operations() -> Vec<Operation> {
    vec![get("/api/v1/openapi.json", openapi::document)]
}

/// The whole API.
pub(crate) fn router(appliance: Appliance, closing: CancellationToken) -> Router {
    let api = Api { appliance, closing };
    routes(operations())
        .route_layer(middleware::from_fn_with_state(api.clone(), access::identify))
        .merge(routes(open_operations()))
        .fallback(async || Problem::no_such_path())
        .method_not_allowed_fallback(async || Problem::no_such_method())
        .layer(middleware::from_fn(answer::complete))
        .with_state(api)
}

fn routes(operations: Vec<Operation>) -> Router<Api> {
    operations.into_iter().fold(Router::new(), |router, operation| router.route(operation.path, operation.handler))
}

fn get<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Operation {
    Operation { method: "get", path, handler: routing::get(handler) }
}

fn post<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Operation {
    Operation { method: "post", path, handler: routing::post(handler) }
}

fn patch<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Operation {
    Operation { method: "patch", path, handler: routing::patch(handler) }
}

fn delete<H: Handler<T, Api>, T: 'static>(path: &'static str, handler: H) -> Operation {
    Operation { method: "delete", path, handler: routing::delete(handler) }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_document_lists_exactly_the_operations() {
        let document: serde_json::Value = serde_json::from_str(openapi::TEXT).unwrap();
        let documented: BTreeSet<(String, String)> = document["paths"]
            .as_object()
            .unwrap()
            .iter()
            .flat_map(|(path, methods)| {
                methods.as_object().unwrap().keys().map(move |method| (path.clone(), method.clone()))
            })
            .filter(|(_, method)| method != "parameters")
            .collect();
        let served: BTreeSet<(String, String)> = operations()
            .into_iter()
            .chain(open_operations())
            .map(|operation| (operation.path.to_owned(), operation.method.to_owned()))
            .collect();
        assert_eq!(documented, served);
    }

    #[test]
    fn the_routes_do_not_contradict_each_other() {
        // `route` panics where two overlap.
        let _ = routes(operations()).merge(routes(open_operations()));
    }
}
