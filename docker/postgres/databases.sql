-- Creates a database and a role each for Dagster and MLflow; neither can read the other's. The passwords are in the
-- environment. The image runs this script when its folder is empty; running it again changes passwords only.
\set ON_ERROR_STOP on
\getenv admin_password POSTGRES_PASSWORD
\getenv dagster_password DAGSTER_POSTGRES_PASSWORD
\getenv mlflow_password MLFLOW_POSTGRES_PASSWORD

SELECT format('CREATE ROLE %I', name) FROM (VALUES ('dagster'), ('mlflow')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) \gexec

-- The server must not log passwords, even if a statement fails.
SET log_statement = 'none';
SET log_min_error_statement = 'panic';
ALTER ROLE CURRENT_USER PASSWORD :'admin_password';
ALTER ROLE dagster LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'dagster_password';
ALTER ROLE mlflow LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION PASSWORD :'mlflow_password';

SELECT format('CREATE DATABASE %I OWNER %I', name, name) FROM (VALUES ('dagster'), ('mlflow')) AS wanted (name)
WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = name) \gexec

-- By default, every role may connect to every database.
REVOKE ALL ON DATABASE dagster, mlflow, postgres, template1 FROM PUBLIC;
