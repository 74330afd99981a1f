//! holdfast-plugin-postgres
