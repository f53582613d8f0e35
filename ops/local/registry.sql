-- run once by the PostgreSQL container: the registry keeps its schemas apart from the warehouse
CREATE DATABASE registry OWNER backbone;
