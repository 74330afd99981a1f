//! The trait that a plugin implements, and the glue between its typed documents and the component's exports.

use std::marker::PhantomData;
use std::sync::Once;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::exports::holdfast::engine::plugin::{Guest, Json};
use crate::bindings::holdfast::engine::types;
use crate::document::{Description, DumpRequest, Inventory, Probe, RestoreRequest, Restored, Verified, VerifyRequest};
use crate::{Error, Result, job};

/// An engine plugin. The host calls one function of a fresh guest and drops it: nothing is remembered between calls but
/// what is in the backup.
pub trait Engine {
    /// Who the plugin is. Called without any grant; must not depend on anything.
    fn describe() -> Description;

    /// Looks at the server. One that cannot be reached or denies access is an error.
    fn probe() -> Result<Probe>;

    /// Writes a backup through [`archive`](crate::archive) and says what it wrote.
    fn dump(request: DumpRequest) -> Result<Inventory>;

    /// Restores [`archive::current`](crate::archive::current) to [`destination`](crate::destination), or to a server.
    fn restore(request: RestoreRequest) -> Result<Restored>;

    /// Judges [`archive::current`](crate::archive::current) by the engine's own rules. A bad backup is a result; an error
    /// means that it could not be judged.
    fn verify(request: VerifyRequest) -> Result<Verified>;
}

/// Makes a type that implements [`Engine`] the component's exports. Once in a crate, at its root.
///
/// On other targets than wasm there is nothing to export: only the type is checked.
#[macro_export]
macro_rules! register {
    ($engine:ty) => {
        #[cfg(target_family = "wasm")]
        #[allow(unsafe_code, missing_docs)]
        const _: () = {
            type Registered = $crate::Exported<$engine>;
    $crate::bindings::export_engine!(Registered with_types_in $crate::bindings);
        };
        #[cfg(not(target_family = "wasm"))]
        const _: fn() -> $crate::document::Description = <$engine as $crate::Engine>::describe;
    };
}

/// An engine as the component model sees it. Made by [`register!`].
#[doc(hidden)]
pub struct Exported<E>(PhantomData<E>);

impl<E: Engine + 'static> Guest for Exported<E> {
    fn describe() -> Json {
        // A description that cannot be written is no JSON, and the host refuses the plugin with that reason.
        serde_json::to_string(&E::describe()).unwrap_or_default()
    }

    fn probe() -> Result<Json, types::Error> {
        log_panics();
        answer(E::probe())
    }

    fn dump(request: Json) -> Result<Json, types::Error> {
        log_panics();
        answer(parse(&request).and_then(E::dump))
    }

    fn restore(request: Json) -> Result<Json, types::Error> {
        log_panics();
        answer(parse(&request).and_then(E::restore))
    }

    fn verify(request: Json) -> Result<Json, types::Error> {
        log_panics();
        answer(parse(&request).and_then(E::verify))
    }
}

fn parse<T: DeserializeOwned>(request: &str) -> Result<T> {
    serde_json::from_str(request).map_err(|error| Error::from(error).during("the host's request"))
}

fn answer(result: Result<impl Serialize>) -> Result<Json, types::Error> {
    let document = result.and_then(|document| Ok(serde_json::to_string(&document)?));
    document.map_err(types::Error::from)
}

/// Makes a panic say why: it reaches the host as a bare `unreachable`.
fn log_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        std::panic::set_hook(Box::new(|panic| job::log("error", &format!("the plugin panicked: {panic}"))))
    });
}
