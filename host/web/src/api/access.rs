//! Who asks: the local socket's peer is the administrator, anybody else shows a bearer token. Nothing passes without a principal.

use axum::extract::{Extension, Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::Response;
use holdfast_control::{Appliance, Principal};

use super::error::Problem;
use crate::connection::Peer;

/// Puts the [`Principal`] into the request, or refuses it.
pub(crate) async fn identify(
    State(appliance): State<Appliance>,
    Extension(peer): Extension<Peer>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let principal = match peer {
        Peer::Local => Principal { name: "local socket".to_owned() },
        Peer::Remote => {
            let token = bearer_token(&request)?;
            appliance.authenticate(token).await.ok_or_else(|| Problem::unauthorized("the token is not known"))?
        }
    };
    request.extensions_mut().insert(principal);
    Ok(next.run(request).await)
}

fn bearer_token(request: &Request) -> Result<&str, Problem> {
    let header =
        request.headers().get(AUTHORIZATION).ok_or_else(|| Problem::unauthorized("the request carries no token"))?;
    let (scheme, token) = header.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    if scheme.eq_ignore_ascii_case("bearer") && !token.trim().is_empty() {
        Ok(token.trim())
    } else {
        Err(Problem::unauthorized("the request carries no bearer token"))
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    fn with(value: &str) -> Request {
        Request::builder().header(AUTHORIZATION, value).body(Body::empty()).unwrap()
    }

    #[test]
    fn only_bearer_tokens_count() {
        assert_eq!(bearer_token(&with("Bearer abc")).unwrap(), "abc");
        assert_eq!(bearer_token(&with("bearer  abc ")).unwrap(), "abc");
        for wrong in ["abc", "Basic abc", "Bearer", "Bearer  "] {
            assert!(bearer_token(&with(wrong)).is_err(), "{wrong}");
        }
        assert!(bearer_token(&Request::new(Body::empty())).is_err());
    }
}
