DROP TABLE takeovers;
DROP TABLE resolutions;
DROP TABLE events;
DROP TABLE arrivals;
DROP TABLE provider_observations;
DROP TABLE provider_calls;
DROP TABLE instances;
