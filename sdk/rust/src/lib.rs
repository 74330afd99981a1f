//! holdfast-sdk
