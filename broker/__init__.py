"""How messages travel: the session around paho, the embedded broker, and the deployment's configuration."""
