//! portcullis-agent
