//! Bearer tokens: random, stored hashed, compared in constant time.

use ring::rand::{SecureRandom, SystemRandom};

use crate::appliance::State;
use crate::{Appliance, Error, ErrorKind, Principal, clock};

impl Appliance {
    /// Whose bearer token this is. All tokens are compared, each in constant time.
    pub async fn authenticate(&self, token: &str) -> Option<Principal> {
        let given = blake3::hash(token.as_bytes());
        let tokens = match self.0.catalog.tokens().await {
            Ok(tokens) => tokens,
            Err(error) => {
                tracing::error!(%error, "reading the tokens failed");
                return None;
            }
        };
        // `blake3::Hash` compares in constant time.
        tokens.into_iter().fold(None, |found, row| {
            if blake3::Hash::from(row.hash) == given { Some(Principal { name: row.name }) } else { found }
        })
    }
}

/// Makes the admin token at first start. A token that was hashed but not written for its reader is replaced.
pub(crate) async fn ensure_admin(state: &State) -> Result<(), Error> {
    if state.data.admin_token_path().exists() {
        return Ok(());
    }
    let mut random = [0; 32];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| Error::new(ErrorKind::Internal, "no-randomness", "the system gave no random bytes"))?;
    let token = zeroize::Zeroizing::new(format!("hf_{}", hex::encode(random)));
    state.catalog.revoke_token("admin").await?;
    state.catalog.insert_token("admin", *blake3::hash(token.as_bytes()).as_bytes(), clock::now_ms()).await?;
    state.data.write_admin_token(&token)
}
